//! What the load generator asks for, drawn from a seed: 90 % reads, keys by Zipf's law, and bodies that verify themselves.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};

use crate::database::{NewSession, NewUser};
use crate::net::{IDEMPOTENCY_KEY, request};
use crate::sample::WriteOf;
use crate::storage::{Session, User};

pub(crate) const USERS: usize = 25;

/// Of all users together.
pub(crate) const RECORDS: usize = 200;

/// What can be asked of the flow; users and records by their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    ReadUser(usize),
    ReadSessions(usize),
    ReadRecord(usize),
    WriteSession(usize),
    WriteRecord(usize),
}

/// Makes the requests and checks the answers.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) seed: u64,
    /// The ids that the database gave them.
    pub(crate) users: Vec<i64>,
}

/// A small generator (SplitMix64): a seed means the same requests for ever.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

/// Draws the index `i` with a probability in proportion to `1 / (i + 1)`.
#[derive(Clone, Debug)]
pub(crate) struct Zipf {
    cumulative: Vec<f64>,
}

/// The request that makes a user.
pub(crate) fn new_user(index: usize, seed: u64) -> Request<Bytes> {
    write(Method::POST, "/users", json(&NewUser { name: user_name(index) }), &format!("user-{seed}-{index}"))
}

// === impl Operation ===

impl Operation {
    pub(crate) fn draw(random: &mut Random, popularity: &Zipf) -> Self {
        let record = popularity.draw(random.unit());
        match random.unit() {
            ..0.70 => Self::ReadRecord(record),
            ..0.80 => Self::ReadUser(record % USERS),
            ..0.90 => Self::ReadSessions(record % USERS),
            ..0.98 => Self::WriteRecord(record),
            _ => Self::WriteSession(record % USERS),
        }
    }

    pub(crate) fn is_read(self) -> bool {
        matches!(self, Self::ReadUser(_) | Self::ReadSessions(_) | Self::ReadRecord(_))
    }

    /// The record that is read.
    pub(crate) fn record(self) -> Option<usize> {
        match self {
            Self::ReadRecord(record) => Some(record),
            _ => None,
        }
    }
}

// === impl Workload ===

impl Workload {
    /// The request that writes a record for the first time.
    pub(crate) fn new_record(&self, record: usize) -> Request<Bytes> {
        let key = format!("record-{}-{record}", self.seed);
        write(Method::PUT, &self.record_path(record), self.value(record, 0), &key)
    }

    /// What is asked for.
    pub(crate) fn path(&self, operation: Operation) -> String {
        match operation {
            Operation::ReadUser(user) => format!("/users/{}", self.users[user]),
            Operation::ReadSessions(user) | Operation::WriteSession(user) => self.sessions_path(user),
            Operation::ReadRecord(record) | Operation::WriteRecord(record) => self.record_path(record),
        }
    }

    /// The `number`th request of the run.
    pub(crate) fn request(&self, operation: Operation, number: u64) -> Request<Bytes> {
        let (path, key) = (self.path(operation), self.key(number));
        match operation {
            Operation::WriteSession(_) => write(Method::POST, &path, json(&NewSession { device: key.clone() }), &key),
            Operation::WriteRecord(record) => write(Method::PUT, &path, self.value(record, number), &key),
            _ => request(Method::GET, &path, Bytes::new()),
        }
    }

    /// What the `number`th request writes, for the journal; `None` of a read.
    pub(crate) fn write_of(&self, operation: Operation, number: u64) -> Option<WriteOf> {
        match operation {
            Operation::WriteSession(user) => {
                Some(WriteOf::Session { user: self.users[user], device: self.key(number) })
            }
            Operation::WriteRecord(record) => {
                let (user, name) = (self.users[record % USERS], record_name(record));
                Some(WriteOf::Record { record, user, name, version: number })
            }
            _ => None,
        }
    }

    /// The version of the record that was read, if one was.
    ///
    /// # Errors
    ///
    /// What is wrong with the answer.
    pub(crate) fn verify(
        &self,
        operation: Operation,
        number: u64,
        answer: &Response<Bytes>,
    ) -> Result<Option<u64>, String> {
        let body = answer.body();
        if !answer.status().is_success() {
            let why: String = String::from_utf8_lossy(body).trim().chars().take(120).collect();
            return Err(format!("{}: {why}", answer.status()));
        }
        let mut read = None;
        let right = match operation {
            Operation::ReadUser(user) => serde_json::from_slice::<User>(body)
                .is_ok_and(|got| got.id == self.users[user] && got.name == user_name(user)),
            Operation::ReadSessions(user) => serde_json::from_slice::<Vec<Session>>(body)
                .is_ok_and(|got| got.iter().all(|session| session.user == self.users[user])),
            Operation::ReadRecord(record) => {
                // Some version that was written: which one is for the audit to judge.
                read = std::str::from_utf8(body).ok().and_then(version);
                read.is_some_and(|version| *body == self.value(record, version))
            }
            Operation::WriteSession(user) => serde_json::from_slice::<Session>(body)
                .is_ok_and(|got| got.user == self.users[user] && got.device == self.key(number)),
            Operation::WriteRecord(record) => *body == self.value(record, number),
        };
        if right { Ok(read) } else { Err(format!("a wrong body for {operation:?}")) }
    }

    fn sessions_path(&self, user: usize) -> String {
        format!("/users/{}/sessions", self.users[user])
    }

    /// The popular records belong to different users.
    fn record_path(&self, record: usize) -> String {
        format!("/users/{}/records/{}", self.users[record % USERS], record_name(record))
    }

    /// The value of a record that the `version`th request writes: it names itself, so that a mix-up shows.
    fn value(&self, record: usize, version: u64) -> String {
        let (user, seed) = (self.users[record % USERS], self.seed);
        format!(r#"{{"user":{user},"record":{record},"seed":{seed},"version":"{version}"}}"#)
    }

    fn key(&self, number: u64) -> String {
        format!("load-{}-{number}", self.seed)
    }
}

/// The version that the value of a record says it is.
pub(crate) fn version(value: &str) -> Option<u64> {
    value.rsplit('"').nth(1)?.parse().ok()
}

fn record_name(record: usize) -> String {
    format!("r{}", record / USERS)
}

fn user_name(index: usize) -> String {
    format!("user {index}")
}

fn json(body: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("plain data")
}

/// A write that may be sent twice: its key says that it is the same one.
fn write(method: Method, path: &str, body: impl Into<Bytes>, key: &str) -> Request<Bytes> {
    let mut request = request(method, path, body);
    let key = HeaderValue::from_str(key).expect("made of letters, digits and dashes");
    request.headers_mut().insert(IDEMPOTENCY_KEY, key);
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request
}

// === impl Random ===

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From 0 to 1, without 1.
    #[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

// === impl Zipf ===

impl Zipf {
    #[allow(clippy::cast_precision_loss, reason = "a few hundred keys")]
    pub(crate) fn new(keys: usize) -> Self {
        let weights = (1..=keys).map(|rank| 1.0 / rank as f64);
        let cumulative = weights.scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        Self { cumulative: cumulative.collect() }
    }

    pub(crate) fn draw(&self, unit: f64) -> usize {
        let target = unit * self.cumulative.last().copied().unwrap_or_default();
        self.cumulative.partition_point(|sum| *sum <= target).min(self.cumulative.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(seed: u64) -> Vec<Operation> {
        let (mut random, popularity) = (Random::new(seed), Zipf::new(RECORDS));
        (0..10_000).map(|_| Operation::draw(&mut random, &popularity)).collect()
    }

    #[test]
    fn a_seed_means_the_same_requests_for_ever() {
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert_eq!(draw(1)[..3], [Operation::ReadUser(15), Operation::ReadRecord(168), Operation::ReadUser(7)]);
    }

    #[test]
    fn nine_in_ten_read_and_the_first_key_is_the_most_popular() {
        let drawn = draw(1);
        let reads = drawn.iter().filter(|operation| operation.is_read()).count();
        assert!((8_900..9_100).contains(&reads), "{reads}");
        let of = |record| drawn.iter().filter(|operation| **operation == Operation::ReadRecord(record)).count();
        // 1 / H(200) of 70 %, which is 1 191 expected; the second half of that.
        assert!((1_080..1_300).contains(&of(0)), "{}", of(0));
        assert!((520..680).contains(&of(1)), "{}", of(1));
    }

    #[test]
    fn a_body_of_another_record_is_wrong() {
        let workload = Workload { seed: 1, users: (1..).take(USERS).collect() };
        let answer = |record| Response::new(Bytes::from(workload.value(record, 17)));
        assert_eq!(workload.verify(Operation::ReadRecord(3), 0, &answer(3)), Ok(Some(17)));
        assert!(workload.verify(Operation::ReadRecord(3), 0, &answer(4)).is_err());
        assert!(workload.verify(Operation::WriteRecord(3), 18, &answer(3)).is_err());
    }
}
