//! [`poll_seen`]: polls, and has a look at the result on its way out.
#![allow(dead_code, reason = "used by the families, each behind its feature")]

use std::task::Poll;

/// Results of up to this many bytes are handed over piece by piece: they fit in registers, where the compiler knows what it has
/// seen of them. Larger ones stay where they are; each move is a copy of all of it.
const SMALL: usize = 64;

/// Polls a call, and looks at its result. Not closures, so that they can be made to be in line.
pub(crate) trait See<T, E> {
    fn poll(&mut self) -> Poll<Result<T, E>>;

    /// Sees a response.
    fn response(self, response: &T);

    /// Sees an error, and may put another in its place.
    fn error(self, error: &mut E);
}

/// Polls, and has the result seen.
#[inline(always)]
pub(crate) fn poll_seen<T, E>(call: impl See<T, E>) -> Poll<Result<T, E>> {
    if const { size_of::<Poll<Result<T, E>>>() <= SMALL } { by_value(call) } else { by_reference(call) }
}

#[inline(always)]
fn by_value<T, E>(mut call: impl See<T, E>) -> Poll<Result<T, E>> {
    match call.poll() {
        Poll::Pending => Poll::Pending,
        Poll::Ready(Ok(response)) => {
            call.response(&response);
            Poll::Ready(Ok(response))
        }
        Poll::Ready(Err(mut error)) => {
            call.error(&mut error);
            Poll::Ready(Err(error))
        }
    }
}

#[inline(always)]
fn by_reference<T, E>(mut call: impl See<T, E>) -> Poll<Result<T, E>> {
    let mut polled = call.poll();
    match &mut polled {
        Poll::Pending => {}
        Poll::Ready(Ok(response)) => call.response(response),
        Poll::Ready(Err(error)) => call.error(error),
    }
    polled
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Call<'a, T>(&'a mut Option<bool>, Poll<Result<T, u8>>);

    impl<T: Copy> See<T, u8> for Call<'_, T> {
        fn poll(&mut self) -> Poll<Result<T, u8>> {
            self.1
        }

        fn response(self, _: &T) {
            *self.0 = Some(true);
        }

        fn error(self, error: &mut u8) {
            *self.0 = Some(false);
            *error += 1;
        }
    }

    /// What was seen, and what came out.
    fn polled<T: Copy>(polled: Poll<Result<T, u8>>) -> (Option<bool>, Poll<Result<T, u8>>) {
        let mut seen = None;
        let out = poll_seen(Call(&mut seen, polled));
        (seen, out)
    }

    #[test]
    fn small_and_large_results_are_seen_alike() {
        let large = [7_u64; 100];
        assert_eq!(polled(Poll::Ready(Ok(7_u64))), (Some(true), Poll::Ready(Ok(7))));
        assert_eq!(polled(Poll::Ready(Ok(large))), (Some(true), Poll::Ready(Ok(large))));
        assert_eq!(polled::<u64>(Poll::Ready(Err(1))), (Some(false), Poll::Ready(Err(2))));
        assert_eq!(polled::<[u64; 100]>(Poll::Ready(Err(1))), (Some(false), Poll::Ready(Err(2))));
        assert_eq!(polled::<u64>(Poll::Pending), (None, Poll::Pending));
        assert_eq!(polled::<[u64; 100]>(Poll::Pending), (None, Poll::Pending));
    }
}
