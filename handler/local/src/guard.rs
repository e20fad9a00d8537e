//! The door: what a request from the network must be before the API sees it.
//!
//! A web page in somebody's browser can send requests to loopback ports as well, also under a name of its own that resolves to
//! 127.0.0.1. So the `Host` must be a loopback one, and an `Origin` must be this very server. Who has no certificate may ask
//! whether the server is healthy, and nothing else.

use http::{HeaderMap, Method, Request, header};

use crate::status::{Answer, Failure};

const OPEN_PATHS: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// Refuses a request that must not reach the API.
pub(crate) fn check<B>(request: &Request<B>, authenticated: bool) -> Answer<()> {
    let host = one(request.headers(), &header::HOST)?;
    let named = request.uri().authority().map(http::uri::Authority::as_str);
    if !host.is_some_and(is_loopback) || !named.is_none_or(is_loopback) {
        return Err(Failure::refused(
            "this server answers to 127.0.0.1, [::1] and localhost only",
        ));
    }
    if let Some(origin) = one(request.headers(), &header::ORIGIN)? {
        let same = origin
            .strip_prefix("https://")
            .is_some_and(|origin| Some(origin) == host);
        if !same {
            return Err(Failure::refused("requests from other origins are not answered"));
        }
    }
    let open = request.method() == Method::GET && OPEN_PATHS.contains(&request.uri().path());
    if authenticated || open {
        Ok(())
    } else {
        Err(Failure::unauthorized())
    }
}

/// A header that must not be there twice.
fn one<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Answer<Option<&'a str>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Failure::refused(format!("more than one {name} header")));
    }
    let text = first.map(|value| value.to_str()).transpose();
    text.map_err(|_| Failure::refused(format!("the {name} header is no text")))
}

/// Whether `host[:port]` names this machine's loopback.
fn is_loopback(authority: &str) -> bool {
    let rest = ["127.0.0.1", "[::1]"]
        .iter()
        .find_map(|host| authority.strip_prefix(host))
        .or_else(|| {
            let (name, rest) = authority.split_at_checked("localhost".len())?;
            name.eq_ignore_ascii_case("localhost").then_some(rest)
        });
    rest.is_some_and(|rest| {
        rest.is_empty()
            || rest
                .strip_prefix(':')
                .is_some_and(|port| port.parse::<u16>().is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(path: &str, headers: &[(&str, &str)], authenticated: bool) -> u16 {
        let builder = headers.iter().fold(Request::get(path), |builder, (name, value)| {
            builder.header(*name, *value)
        });
        check(&builder.body(()).unwrap(), authenticated)
            .map_or_else(|failure| failure.code().as_u16(), |()| 200)
    }

    #[test]
    fn only_loopback_hosts_are_answered() {
        let codes = |hosts: [&str; 5]| hosts.map(|host| answer("/api", &[("host", host)], true));
        assert_eq!(
            codes([
                "127.0.0.1",
                "127.0.0.1:6443",
                "localhost:1",
                "[::1]:6443",
                "LOCALHOST"
            ]),
            [200; 5]
        );
        assert_eq!(
            codes([
                "evil.example",
                "127.0.0.1.evil.example",
                "localhost.evil:1",
                "127.0.0.1:x",
                "user@127.0.0.1"
            ]),
            [403; 5]
        );
        assert_eq!(answer("/api", &[], true), 403);
        assert_eq!(
            answer("/api", &[("host", "localhost"), ("host", "evil.example")], true),
            403
        );
        assert_eq!(
            answer("https://evil.example/api", &[("host", "localhost")], true),
            403
        );
    }

    #[test]
    fn foreign_origins_are_refused_even_for_health() {
        let from = |origin: &str| {
            answer(
                "/healthz",
                &[("host", "127.0.0.1:6443"), ("origin", origin)],
                true,
            )
        };
        assert_eq!(from("https://127.0.0.1:6443"), 200);
        assert_eq!(
            [
                "https://evil.example",
                "null",
                "http://127.0.0.1:6443",
                "https://127.0.0.1:3000"
            ]
            .map(from),
            [403; 4]
        );
    }

    #[test]
    fn without_a_certificate_only_health_is_told() {
        let nobody = |path: &str| answer(path, &[("host", "localhost")], false);
        assert_eq!(["/healthz", "/livez", "/readyz"].map(nobody), [200; 3]);
        assert_eq!(
            ["/", "/version", "/api", "/healthz/", "/apis/kubevirt.io/v1"].map(nobody),
            [401; 5]
        );
    }
}
