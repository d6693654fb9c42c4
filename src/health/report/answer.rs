//! [`HealthAnswer`]: one answer of a report, for people and for orchestrators.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use super::Phase;
use super::json::Object;
use super::part::Role;
use crate::Name;
use crate::health_status::HealthStatus;

/// Which question an answer answers.
///
/// # Examples
///
/// ```
/// assert_eq!(mainstay::health::Question::Readiness.as_str(), "readiness");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// Has the application started?
    Startup,
    /// Must it be restarted?
    Liveness,
    /// May it be sent requests?
    Readiness,
}

/// The worst of what the parts say. Ordered from good to bad.
///
/// # Examples
///
/// ```
/// use mainstay::health::Verdict;
///
/// assert!(Verdict::Pass < Verdict::Warn && Verdict::Warn < Verdict::Fail);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// All well.
    Pass,
    /// Yes, but something is not well.
    Warn,
    /// No.
    Fail,
}

/// One answer: a [`Verdict`], and the parts that it was made from.
///
/// # Examples
///
/// ```
/// use mainstay::health::{HealthReport, Verdict};
///
/// let report = HealthReport::new("shop");
/// let answer = report.readiness();
/// assert_eq!(answer.verdict(), Verdict::Fail);
/// assert_eq!(answer.http_status(), 503);
/// assert!(answer.to_json().starts_with(r#"{"status":"fail","name":"shop","question":"readiness","phase":"starting""#));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthAnswer {
    name: Name,
    question: Question,
    verdict: Verdict,
    phase: Phase,
    since: Instant,
    parts: Vec<PartHealth>,
    asked: Instant,
}

/// One part within a [`HealthAnswer`].
///
/// # Examples
///
/// ```
/// use mainstay::health::{HealthReport, Role};
///
/// let report = HealthReport::new("shop");
/// report.mark_started();
/// report.add_check("disk", Role::Critical, || Err("full"))?;
/// let answer = report.readiness();
/// assert_eq!(answer.parts()[0].detail.as_deref(), Some("full"));
/// # Ok::<_, mainstay::InvalidConfig>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartHealth {
    /// The name.
    pub name: Name,
    /// What it means to the whole.
    pub role: Role,
    /// The status.
    pub status: HealthStatus,
    /// Words about it, at most 256 bytes.
    pub detail: Option<Arc<str>>,
    /// Since when it has had this status. For a part that is asked: since the report was first asked and got it.
    pub since: Instant,
    pub(super) ever_healthy: bool,
}

// === impl Question ===

impl Question {
    /// The word used in JSON: `startup`, `liveness` or `readiness`.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::health::Question::Startup.as_str(), "startup");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Verdict ===

impl Verdict {
    /// The word used in JSON: `pass`, `warn` or `fail`, as in the drafts of `application/health+json`.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::health::Verdict::Warn.as_str(), "warn");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl HealthAnswer ===

impl HealthAnswer {
    /// Parts listed in the JSON; more are counted as `omitted`.
    const LISTED: usize = 100;

    pub(super) fn new(name: Name, question: Question, phase: Phase, since: Instant, parts: Vec<PartHealth>) -> Self {
        let own = match (question, phase) {
            (Question::Startup | Question::Readiness, Phase::Starting) | (Question::Readiness, Phase::Stopping) => {
                Verdict::Fail
            }
            _ => Verdict::Pass,
        };
        let of_part = |part: &PartHealth| part.role.verdict(question, part.status, part.ever_healthy);
        let verdict = parts.iter().map(of_part).fold(own, Verdict::max);
        Self { name, question, verdict, phase, since, parts, asked: Instant::now() }
    }

    /// The worst of it all.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::{HealthReport, Verdict};
    ///
    /// assert_eq!(HealthReport::new("shop").liveness().verdict(), Verdict::Pass);
    /// ```
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Whether the answer is yes: anything but [`Verdict::Fail`].
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(!mainstay::health::HealthReport::new("shop").readiness().passed());
    /// ```
    #[must_use]
    pub fn passed(&self) -> bool {
        self.verdict < Verdict::Fail
    }

    /// The status for HTTP: 200 where the answer is yes, 503 where it is no.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::health::HealthReport::new("shop").liveness().http_status(), 200);
    /// ```
    #[must_use]
    pub fn http_status(&self) -> u16 {
        if self.passed() { 200 } else { 503 }
    }

    /// Which question was asked.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::{HealthReport, Question};
    ///
    /// assert_eq!(HealthReport::new("shop").startup().question(), Question::Startup);
    /// ```
    #[must_use]
    pub const fn question(&self) -> Question {
        self.question
    }

    /// Where in its life the application was.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::{HealthReport, Phase};
    ///
    /// assert_eq!(HealthReport::new("shop").startup().phase(), Phase::Starting);
    /// ```
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// The parts that were asked, in the order in which they were added.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(mainstay::health::HealthReport::new("shop").readiness().parts().is_empty());
    /// ```
    #[must_use]
    pub fn parts(&self) -> &[PartHealth] {
        &self.parts
    }

    /// The answer as one JSON object, with each part's name, role, status, detail, and for how long it has been so.
    ///
    /// The first 100 parts are listed; beyond that their number stands in `omitted`.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::{HealthReport, Role};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), mainstay::InvalidConfig> {
    /// let report = HealthReport::new("shop");
    /// report.mark_started();
    /// report.add_check("disk", Role::Critical, || Err("\"/\" is full"))?;
    /// assert_eq!(
    ///     report.readiness().to_json(),
    ///     concat!(
    ///         r#"{"status":"fail","name":"shop","question":"readiness","phase":"running","for_seconds":0.000,"#,
    ///         r#""parts":[{"name":"disk","role":"critical","status":"unhealthy","for_seconds":0.000,"#,
    ///         r#""detail":"\"/\" is full"}]}"#,
    ///     ),
    /// );
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(128 + 128 * self.parts.len().min(Self::LISTED));
        let mut object = Object::new(&mut out);
        object
            .string("status", self.verdict.as_str())
            .string("name", &self.name)
            .string("question", self.question.as_str())
            .string("phase", self.phase.as_str())
            .seconds("for_seconds", self.asked.saturating_duration_since(self.since));
        object.array("parts", self.parts.iter().take(Self::LISTED), |part, object| {
            object
                .string("name", &part.name)
                .string("role", part.role.as_str())
                .string("status", part.status.as_str())
                .seconds("for_seconds", self.asked.saturating_duration_since(part.since));
            if let Some(detail) = &part.detail {
                object.string("detail", detail);
            }
        });
        if let Some(omitted) = self.parts.len().checked_sub(Self::LISTED).filter(|&omitted| omitted > 0) {
            object.number("omitted", omitted);
        }
        object.end();
        out
    }

    /// The answer as JSON without anything but the status: for those who need not know what the application is made of.
    ///
    /// # Examples
    ///
    /// ```
    /// let report = mainstay::health::HealthReport::new("shop");
    /// assert_eq!(report.liveness().to_json_without_details(), r#"{"status":"pass"}"#);
    /// ```
    #[must_use]
    pub fn to_json_without_details(&self) -> String {
        let mut out = String::new();
        let mut object = Object::new(&mut out);
        object.string("status", self.verdict.as_str());
        object.end();
        out
    }
}
