use mainstay::{Classify, Outcome};

fn judge(_: impl Classify<u32, std::io::Error>) {}

fn main() {
    judge(|_: Result<&u16, &std::io::Error>| Outcome::Success);
}
