//! [`TcpProbe`]: a connection can be opened.

use tokio::net::TcpStream;

use super::probe::{Probe, ProbeError};

/// Passes when a TCP connection to the address can be opened; closes it at once.
///
/// It says that something listens, and no more: a process that accepts and then hangs passes. Where the target has a health
/// page, [`HttpProbe`](super::HttpProbe) says more. Every failure is one of the way to the target, never its
/// [answer](ProbeError::is_answer).
///
/// # Examples
///
/// ```
/// use mainstay::health::{Probe, TcpProbe};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let probe = TcpProbe::new(listener.local_addr()?.to_string());
/// assert!(probe.check().await.is_ok());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpProbe {
    address: String,
}

// === impl TcpProbe ===

impl TcpProbe {
    /// Connects to `address`, as `host:port`. A host name is resolved anew for each check, on a thread of tokio's blocking pool; one
    /// that hangs in the resolver is held beyond the check's timeout, so prefer addresses for many targets.
    ///
    /// # Examples
    ///
    /// ```
    /// let probe = mainstay::health::TcpProbe::new("db.internal:5432");
    /// assert_eq!(probe.address(), "db.internal:5432");
    /// ```
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into() }
    }

    /// The address, as given.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::health::TcpProbe::new("[::1]:80").address(), "[::1]:80");
    /// ```
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Probe for TcpProbe {
    async fn check(&self) -> Result<(), ProbeError> {
        TcpStream::connect(self.address.as_str()).await?;
        Ok(())
    }
}
