//! An SMS gateway.

use std::io::{self, Read as _};
use std::sync::Arc;
use std::sync::Mutex;

use super::{Certificate, Server, Wire};

/// How the gateway takes what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// It answers with this status.
    Status(u16),
    /// It sends whoever asks elsewhere: to this port of this machine.
    Redirect(u16),
    /// It accepts the request and says nothing.
    Hang,
    /// It closes the connection instead of answering.
    Drop,
    /// It answers with this status, and a body that never ends.
    Endless(u16),
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Request {
    /// The first line.
    pub line: String,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The code in it.
    pub fn code(&self) -> String {
        let mut codes = self.body.split(|c: char| !c.is_ascii_digit());
        let code = codes.find(|digits| digits.len() == 8);
        code.expect("no code in the request").to_owned()
    }
}

struct State {
    manner: Mutex<Manner>,
    requests: Mutex<Vec<Request>>,
}

/// A gateway on loopback.
pub struct Gateway {
    server: Server,
    state: Arc<State>,
}

impl Gateway {
    /// Over TLS with a certificate, or in plain text without.
    pub fn start(certificate: Option<&Certificate>) -> Self {
        let state = Arc::new(State {
            manner: Mutex::new(Manner::Status(202)),
            requests: Mutex::default(),
        });
        let (serving, certificate) = (Arc::clone(&state), certificate.cloned());
        let server = Server::start(0, move |stream| {
            let wire = match &certificate {
                Some(certificate) => certificate.accept(stream),
                None => Wire::Plain(stream),
            };
            // A client that goes away ends its thread.
            let _ = serve(wire, &serving);
        });
        Self { server, state }
    }

    pub fn port(&self) -> u16 {
        self.server.port
    }

    pub fn behave(&self, manner: Manner) {
        *self.state.manner.lock().unwrap() = manner;
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }
}

fn serve(mut wire: Wire, state: &State) -> io::Result<()> {
    let line = wire.line()?;
    let mut headers = Vec::new();
    loop {
        let header = wire.line()?;
        let Some((name, value)) = header.split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request {
        line,
        headers,
        body: String::new(),
    };
    let length = request
        .header("content-length")
        .map(|length| length.parse::<usize>().unwrap());
    let mut body = vec![0; length.unwrap_or(0)];
    wire.read_exact(&mut body)?;
    request.body = String::from_utf8(body).unwrap();
    let to = request.header("host").unwrap_or_default().to_owned();
    state.requests.lock().unwrap().push(request);
    let manner = *state.manner.lock().unwrap();
    let head = |status: u16, more: &str| format!("HTTP/1.1 {status} Said\r\n{more}\r\n");
    match manner {
        Manner::Status(status) => {
            let words = format!("{to} was asked");
            let length = format!("Content-Length: {}\r\n", words.len());
            wire.say(&(head(status, &length) + &words))
        }
        Manner::Redirect(port) => {
            let location = format!("Location: http://127.0.0.1:{port}/\r\nContent-Length: 0\r\n");
            wire.say(&head(302, &location))
        }
        Manner::Hang => wire.read_to_end(&mut Vec::new()).map(drop),
        Manner::Drop => Ok(()),
        Manner::Endless(status) => {
            wire.say(&head(status, "Transfer-Encoding: chunked\r\n"))?;
            loop {
                wire.say(&format!("1000\r\n{}\r\n", "x".repeat(0x1000)))?;
            }
        }
    }
}
