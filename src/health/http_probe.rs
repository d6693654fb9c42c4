//! [`HttpProbe`]: a page answers with the right status.

use std::io;
use std::ops::RangeInclusive;

use tokio::net::TcpStream;

use super::probe::{Probe, ProbeError};
use crate::InvalidConfig;

/// `HTTP/1.1 200`: all that is ever read of an answer.
const STATUS_LINE: usize = 12;

/// Passes when a `GET` of a plain `http://` page is answered with an expected status, 200 to 299 by default.
///
/// Each check opens a connection, sends one HTTP/1.1 request with `Connection: close`, reads the first 12 bytes of the answer
/// and closes: no body is read, no redirect followed, no memory used that the target could choose. Another status is an
/// [answer](ProbeError::is_answer); a connection that fails or something that is not HTTP is none.
///
/// It knows no TLS, no proxies and no HTTP/2 on purpose. For those, give the client that the application uses anyway to a
/// [`ServiceProbe`](super::ServiceProbe).
///
/// # Examples
///
/// ```
/// use mainstay::health::HttpProbe;
///
/// let probe = HttpProbe::new("http://10.0.0.7:8080/readyz")?.expect_status(200..=204)?;
/// assert_eq!(probe.url(), "http://10.0.0.7:8080/readyz");
/// assert_eq!(HttpProbe::new("https://10.0.0.7/").unwrap_err().field(), "url");
/// # Ok::<_, mainstay::InvalidConfig>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpProbe {
    url: String,
    /// `host:port`, to connect to.
    address: String,
    /// The whole request, ready to be sent.
    request: String,
    expected: RangeInclusive<u16>,
}

// === impl HttpProbe ===

impl HttpProbe {
    /// Asks for `url`: `http://host[:port][/path]`, port 80 and path `/` where none is given. A host name is resolved anew for
    /// each check, as by [`TcpProbe`](super::TcpProbe).
    ///
    /// # Errors
    ///
    /// When the URL has another scheme, no host, user information, or a character that may not stand in a URL.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::HttpProbe;
    ///
    /// assert!(HttpProbe::new("http://[::1]:8080/healthz?full=1").is_ok());
    /// assert!(HttpProbe::new("http://host/a b").is_err());
    /// ```
    pub fn new(url: impl Into<String>) -> Result<Self, InvalidConfig> {
        let url = url.into();
        let refuse = |requirement: &'static str| InvalidConfig::new("url", url.as_str(), requirement);
        let rest = url.strip_prefix("http://").ok_or_else(|| refuse("must start with `http://`"))?;
        if !rest.bytes().all(|byte| byte.is_ascii_graphic()) || rest.contains('#') {
            return Err(refuse("must hold only what may stand in a URL, and no fragment"));
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(refuse("must hold no user information"));
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        if host.is_empty() || (host.contains(':') && !(host.starts_with('[') && host.ends_with(']'))) {
            return Err(refuse("must name a host; an IPv6 address stands in brackets"));
        }
        let port = match port {
            Some(port) => port.parse::<u16>().map_err(|_| refuse("must have a port of at most 65535"))?,
            None => 80,
        };
        let slash = if path.starts_with('/') { "" } else { "/" };
        let request = format!(
            "GET {slash}{path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: mainstay-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        Ok(Self { address: format!("{host}:{port}"), request, expected: 200..=299, url })
    }

    /// The statuses that pass; 200 to 299 by default.
    ///
    /// # Errors
    ///
    /// When the range is empty or goes beyond 100 to 599.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::HttpProbe;
    ///
    /// // 401 says that the service is up.
    /// assert!(HttpProbe::new("http://host/")?.expect_status(200..=401).is_ok());
    /// assert!(HttpProbe::new("http://host/")?.expect_status(0..=99).is_err());
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn expect_status(mut self, expected: RangeInclusive<u16>) -> Result<Self, InvalidConfig> {
        if expected.is_empty() || *expected.start() < 100 || *expected.end() > 599 {
            return Err(InvalidConfig::new("expect_status", expected, "must be a range within 100 to 599"));
        }
        self.expected = expected;
        Ok(self)
    }

    /// The URL, as given.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::health::HttpProbe::new("http://host")?.url(), "http://host");
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Probe for HttpProbe {
    async fn check(&self) -> Result<(), ProbeError> {
        let stream = TcpStream::connect(self.address.as_str()).await?;
        write_all(&stream, self.request.as_bytes()).await?;
        let mut head = [0; STATUS_LINE];
        read_exact(&stream, &mut head).await?;
        let status = status_of(&head).ok_or("the answer is not HTTP/1")?;
        if self.expected.contains(&status) {
            return Ok(());
        }
        Err(ProbeError::answered(format!("status {status}")))
    }
}

// Written out, so that the family needs no more of tokio than its sockets.

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn read_exact(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        stream.readable().await?;
        match stream.try_read(&mut buffer[filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// `HTTP/1.x NNN`.
fn status_of(head: &[u8; STATUS_LINE]) -> Option<u16> {
    let (minor, code) = head.strip_prefix(b"HTTP/1.")?.split_first()?;
    let code = code.strip_prefix(b" ")?;
    if !minor.is_ascii_digit() || !code.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(code).ok()?.parse().ok().filter(|status| *status >= 100)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        for (url, address, line) in [
            ("http://host", "host:80", "GET / HTTP/1.1\r\nHost: host\r\n"),
            ("http://host:8080/", "host:8080", "GET / HTTP/1.1\r\nHost: host:8080\r\n"),
            ("http://[::1]/a?b=c", "[::1]:80", "GET /a?b=c HTTP/1.1\r\nHost: [::1]\r\n"),
            ("http://[::1]:81?b", "[::1]:81", "GET /?b HTTP/1.1\r\nHost: [::1]:81\r\n"),
        ] {
            let probe = HttpProbe::new(url).unwrap();
            assert_eq!(probe.address, address, "{url}");
            assert!(probe.request.starts_with(line), "{url}: {}", probe.request);
            assert!(probe.request.ends_with("\r\nConnection: close\r\n\r\n"));
        }
    }

    #[test]
    fn what_is_no_plain_url_is_refused() {
        for url in [
            "",
            "host:80",
            "https://host/",
            "http://",
            "http:///path",
            "http://:80/",
            "http://host:/",
            "http://host:99999/",
            "http://::1/",
            "http://user:secret@host/",
            "http://host/a b",
            "http://host/a\r\nX: y",
            "http://host/#top",
        ] {
            assert!(HttpProbe::new(url).is_err(), "{url:?}");
        }
    }

    #[test]
    fn only_a_status_line_of_http_1_has_a_status() {
        assert_eq!(status_of(b"HTTP/1.1 204"), Some(204));
        assert_eq!(status_of(b"HTTP/1.0 503"), Some(503));
        for head in [b"HTTP/2.0 200", b"HTTP/1.1 2 0", b"HTTP/1.1 099", b"HTTP/1.x 200", b"SSH-2.0-Open"] {
            assert_eq!(status_of(head), None);
        }
    }

    proptest! {
        #[test]
        fn no_url_can_smuggle_a_line_into_the_request(url in "http://[ -~\\r\\n\\PC]{0,40}") {
            if let Ok(probe) = HttpProbe::new(url) {
                prop_assert_eq!(probe.request.matches("\r\n").count(), 6);
                prop_assert_eq!(probe.request.lines().next().unwrap().split(' ').count(), 3);
            }
        }
    }
}
