// SPDX-License-Identifier: Apache-2.0
//! Opening a URL, at an offset: http and https by ureq, file by itself.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use crate::mirror::Proxies;

/// An answer: its bytes from `offset` on.
pub(crate) struct Body {
    /// Where it begins; 0 where a server knows no ranges.
    pub offset: u64,
    /// Length of the whole file, if the server tells.
    pub total: Option<u64>,
    pub reader: Box<dyn Read + Send>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// This server will not have it: ask another.
    Missing(String),
    /// May go away: ask again.
    Passing(String),
    /// The offset is beyond the end of what the server has.
    Range,
}

pub(crate) struct Transport {
    proxies: Proxies,
    timeout: Duration,
    agents: Mutex<BTreeMap<Option<String>, ureq::Agent>>,
}

impl Transport {
    pub(crate) fn new(proxies: Proxies, timeout: Duration) -> Self {
        Self {
            proxies,
            timeout,
            agents: Mutex::default(),
        }
    }

    pub(crate) fn open(&self, url: &str, offset: u64) -> Result<Body, Fault> {
        match url.strip_prefix("file://") {
            Some(path) => open_file(path, offset),
            None => self.open_http(url, offset),
        }
    }

    fn agent(&self, url: &str) -> Result<ureq::Agent, Fault> {
        let proxy = self.proxies.of(url).map(str::to_owned);
        let mut agents = self
            .agents
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(a) = agents.get(&proxy) {
            return Ok(a.clone());
        }
        let p = match &proxy {
            None => None,
            Some(p) => {
                Some(ureq::Proxy::new(p).map_err(|e| Fault::Missing(format!("proxy `{p}`: {e}")))?)
            }
        };
        let agent = ureq::Agent::config_builder()
            .proxy(p)
            .http_status_as_error(false)
            .max_redirects(5)
            .timeout_connect(Some(self.timeout.min(Duration::from_secs(20))))
            .timeout_recv_response(Some(self.timeout))
            .timeout_per_read(Some(self.timeout))
            .max_idle_connections_per_host(8)
            .user_agent(concat!("lamadist/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        agents.insert(proxy, agent.clone());
        Ok(agent)
    }

    fn open_http(&self, url: &str, offset: u64) -> Result<Body, Fault> {
        let mut request = self.agent(url)?.get(url);
        if offset > 0 {
            request = request.header("Range", format!("bytes={offset}-"));
        }
        let response = request.call().map_err(|e| match e {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::TooManyRedirects => {
                Fault::Missing(e.to_string())
            }
            e => Fault::Passing(e.to_string()),
        })?;
        let header = |name: &str| {
            response
                .headers()
                .get(name)
                .and_then(|v| v.to_str().ok())
                .map(str::to_owned)
        };
        let length = header("content-length").and_then(|v| v.parse::<u64>().ok());
        let status = response.status();
        match status.as_u16() {
            200 => Ok(Body {
                offset: 0,
                total: length,
                reader: Box::new(response.into_body().into_reader()),
            }),
            206 => {
                let (start, total) = header("content-range")
                    .as_deref()
                    .and_then(content_range)
                    .ok_or_else(|| {
                        Fault::Passing("an answer to a range without its range".into())
                    })?;
                if start != offset {
                    return Err(Fault::Range);
                }
                Ok(Body {
                    offset,
                    total,
                    reader: Box::new(response.into_body().into_reader()),
                })
            }
            416 => Err(Fault::Range),
            408 | 425 | 429 | 500..=599 => Err(Fault::Passing(format!("the server says {status}"))),
            _ => Err(Fault::Missing(format!("the server says {status}"))),
        }
    }
}

/// Start and total of `bytes 100-199/200`.
fn content_range(v: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = v.trim().strip_prefix("bytes ")?.split_once('/')?;
    Some((
        range.split_once('-')?.0.trim().parse().ok()?,
        total.trim().parse().ok(),
    ))
}

fn open_file(path: &str, offset: u64) -> Result<Body, Fault> {
    let path = decode(path);
    let fault = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => Fault::Missing("no such file".into()),
        _ => Fault::Missing(e.to_string()),
    };
    let mut f = lama_exec::fs::open(&path).map_err(|e| fault(e.source))?;
    let m = f.metadata().map_err(fault)?;
    if !m.is_file() {
        return Err(Fault::Missing("no file".into()));
    }
    if offset > m.len() {
        return Err(Fault::Range);
    }
    f.seek(SeekFrom::Start(offset)).map_err(fault)?;
    Ok(Body {
        offset,
        total: Some(m.len()),
        reader: Box::new(f),
    })
}

fn decode(path: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let b = path.as_bytes();
    let mut out = Vec::with_capacity(b.len());
    let mut i = 0;
    while let Some(c) = b.get(i) {
        let hex = b
            .get(i + 1..i + 3)
            .and_then(|h| std::str::from_utf8(h).ok());
        match hex
            .filter(|_| *c == b'%')
            .and_then(|h| u8::from_str_radix(h, 16).ok())
        {
            Some(v) => {
                out.push(v);
                i += 3;
            }
            None => {
                out.push(*c);
                i += 1;
            }
        }
    }
    std::ffi::OsString::from_vec(out).into()
}

/// `path` below `base`; what means something in a URL is escaped.
pub(crate) fn join(base: &str, path: &str) -> String {
    let mut out = String::with_capacity(base.len() + path.len() + 1);
    out.push_str(base);
    out.push('/');
    for b in path.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(char::from(b)),
            b'/' | b'-' | b'.' | b'_' | b'~' | b'+' | b':' | b'=' => out.push(char::from(b)),
            _ => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        assert_eq!(
            join("http://m/debian", "pool/a/x_1%3a2~b+c.deb"),
            "http://m/debian/pool/a/x_1%253a2~b+c.deb"
        );
        assert_eq!(decode("/a%20b%zz%"), PathBuf::from("/a b%zz%"));
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(content_range("bytes */10"), None);
    }
}
