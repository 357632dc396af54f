//! Asking for TLS in the clear (RFC 3207).
//!
//! All that is read before TLS may come from anybody. It decides nothing but whether TLS begins, and
//! nothing of it is left over: bytes behind the last reply would be taken for the relay's.

use lettre::transport::smtp::extension::ClientId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::courier::{CourierError, Problem, Step};

/// More than any relay says before TLS.
const MAX_REPLY_BYTES: usize = 16 * 1024;

/// Comes back with a stream on which the relay waits for TLS.
pub(super) async fn ask(
    mut stream: TcpStream,
    hello: &ClientId,
) -> Result<TcpStream, CourierError> {
    expect(&mut stream, 220, Step::Greeting).await?;
    say(&mut stream, &format!("EHLO {hello}\r\n")).await?;
    let offers = expect(&mut stream, 250, Step::Greeting).await?;
    let offered = offers.lines().any(|line| {
        line.get(4..)
            .is_some_and(|offer| offer.trim().eq_ignore_ascii_case("STARTTLS"))
    });
    if !offered {
        return Err(unexpected("the relay offers no STARTTLS"));
    }
    say(&mut stream, "STARTTLS\r\n").await?;
    expect(&mut stream, 220, Step::Tls).await?;
    Ok(stream)
}

fn unexpected(what: &'static str) -> CourierError {
    CourierError::passing(Step::Tls, Problem::Unexpected(what))
}

async fn say(stream: &mut TcpStream, line: &str) -> Result<(), CourierError> {
    let said = stream.write_all(line.as_bytes()).await;
    said.map_err(|error| CourierError::passing(Step::Tls, error))
}

/// One whole reply, with this code, and nothing after it.
async fn expect(stream: &mut TcpStream, code: u16, step: Step) -> Result<String, CourierError> {
    let mut reply = Vec::new();
    loop {
        let mut piece = [0; 1024];
        let read = stream.read(&mut piece).await;
        let read = read.map_err(|error| CourierError::passing(step, error))?;
        reply.extend_from_slice(piece.get(..read).unwrap_or_default());
        if read == 0 || reply.len() > MAX_REPLY_BYTES {
            return Err(unexpected("the relay broke off, or does not speak SMTP"));
        }
        if let Some(found) = complete(&reply) {
            return match found {
                Some((number, text)) if number == code => Ok(text.to_owned()),
                Some((number, _)) => Err(CourierError::passing(
                    step,
                    Problem::Refused {
                        code: number,
                        words: String::new(),
                    },
                )),
                None => Err(unexpected(
                    "the relay says more than it was asked before TLS",
                )),
            };
        }
    }
}

/// `None` until the reply's last line is there; `Some(None)` if it is not one reply.
fn complete(reply: &[u8]) -> Option<Option<(u16, &str)>> {
    let ended = reply.ends_with(b"\r\n");
    let Ok(text) = std::str::from_utf8(reply) else {
        return Some(None);
    };
    let mut lines = text.split_inclusive("\r\n");
    let is_last = |line: &str| line.ends_with("\r\n") && line.as_bytes().get(3) != Some(&b'-');
    let last = lines.by_ref().find(|line| is_last(line))?;
    if !ended || lines.next().is_some() {
        return Some(None);
    }
    let code = last.get(..3).and_then(|code| code.parse().ok());
    Some(code.map(|code| (code, text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_read_to_its_last_line_and_no_further() {
        for unfinished in ["", "220", "220 hello", "250-a\r\n", "250-a\r\n250 b"] {
            assert_eq!(complete(unfinished.as_bytes()), None, "{unfinished:?}");
        }
        for (whole, code) in [
            ("220 x\r\n", 220),
            ("250-a\r\n250 b\r\n", 250),
            ("454 no\r\n", 454),
        ] {
            assert_eq!(complete(whole.as_bytes()), Some(Some((code, whole))));
        }
        for more in [
            "220 x\r\n250 injected\r\n",
            "220 x\r\nA",
            "hello\r\n",
            "2\u{e9} x\r\n",
        ] {
            assert_eq!(complete(more.as_bytes()), Some(None), "{more:?}");
        }
    }
}
