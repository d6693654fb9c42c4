//! When tower's retry layer sends a request again.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use mainstay::BoxError;
use tokio::time::Sleep;
use tower::retry::Policy;
use tower::retry::backoff::{Backoff as _, ExponentialBackoff, ExponentialBackoffMaker, MakeBackoff as _};
use tower::retry::budget::{Budget as _, TpsBudget};
use tower::util::rng::HasherRng;

use crate::net::{Body, IDEMPOTENCY_KEY};

/// The first wait, as in mainstay's flow.
const FIRST_WAIT: Duration = Duration::from_millis(5);

const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Retries errors and 5xx of requests that may be sent twice, while attempts and the budget last.
#[derive(Clone, Debug)]
pub(super) struct RetryPolicy {
    attempts_left: u32,
    /// Shared by all requests; tower's default: a fifth of them, and 10 a second besides.
    budget: Arc<TpsBudget>,
    /// This request's; `None` before the first retry.
    backoff: Option<ExponentialBackoff>,
}

// === impl RetryPolicy ===

impl RetryPolicy {
    /// `attempts`, with the first.
    pub(super) fn new(attempts: u32) -> Self {
        Self { attempts_left: attempts, budget: Arc::new(TpsBudget::default()), backoff: None }
    }
}

impl Policy<Request<Body>, Response<Body>, BoxError> for RetryPolicy {
    type Future = Sleep;

    fn retry(&mut self, _: &mut Request<Body>, result: &mut Result<Response<Body>, BoxError>) -> Option<Self::Future> {
        if result.as_ref().is_ok_and(|answer| !answer.status().is_server_error()) {
            self.budget.deposit();
            return None;
        }
        self.attempts_left -= 1;
        if self.attempts_left == 0 || !self.budget.withdraw() {
            return None;
        }
        Some(self.backoff.get_or_insert_with(backoff).next_backoff())
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        let safe = request.method().is_idempotent() || request.headers().contains_key(IDEMPOTENCY_KEY);
        safe.then(|| request.clone())
    }
}

/// With random numbers of its own: those that one maker makes all draw the same, and would come again in step.
fn backoff() -> ExponentialBackoff {
    ExponentialBackoffMaker::new(FIRST_WAIT, LONGEST_WAIT, 0.99, HasherRng::default())
        .expect("constants, in order")
        .make_backoff()
}
