//! A mail relay.

use std::io::{self, Read as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Certificate, Server, Wire};

/// Who may log in.
pub const USER: &str = "rossby";
pub const PASSWORD: &str = "open sesame";

/// How the relay takes what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// As it should.
    Kind,
    /// It says no to recipients.
    RefuseRecipient(u16),
    /// It says no to the whole message.
    RefuseMessage(u16),
    /// It says no at once.
    RefuseGreeting(u16),
    /// It accepts the connection and says nothing.
    Hang,
    /// It closes the connection in the middle of the message.
    Drop,
    /// It does not know STARTTLS.
    NoStarttls,
    /// Somebody on the way adds words of their own before TLS.
    Inject,
    /// It knows AUTH LOGIN only.
    OnlyLogin,
}

/// How the way to the relay is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    Tls,
    Starttls,
    Plain,
}

/// A mail that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    pub from: String,
    pub to: String,
    pub data: String,
    pub encrypted: bool,
    pub user: Option<String>,
}

impl Mail {
    /// The code in it.
    pub fn code(&self) -> String {
        let body = self.data.split("\r\n\r\n").nth(1).expect("no body");
        let mut codes = body.split(|c: char| !c.is_ascii_digit());
        let code = codes.find(|digits| digits.len() == 8);
        code.expect("no code in the mail").to_owned()
    }
}

struct State {
    manner: Mutex<Manner>,
    mails: Mutex<Vec<Mail>>,
    /// All that clients said, login and message too.
    heard: Mutex<Vec<String>>,
}

/// A relay on loopback.
pub struct Relay {
    server: Server,
    state: Arc<State>,
}

impl Relay {
    pub fn start(security: Security, certificate: &Certificate) -> Self {
        Self::start_at(0, security, certificate)
    }

    pub fn start_at(port: u16, security: Security, certificate: &Certificate) -> Self {
        let state = Arc::new(State {
            manner: Mutex::new(Manner::Kind),
            mails: Mutex::default(),
            heard: Mutex::default(),
        });
        let (serving, certificate) = (Arc::clone(&state), certificate.clone());
        let server = Server::start(port, move |stream| {
            // A client that goes away ends its thread.
            let _ = Dialogue::new(stream, security, &certificate, &serving).run();
        });
        Self { server, state }
    }

    pub fn port(&self) -> u16 {
        self.server.port
    }

    pub fn behave(&self, manner: Manner) {
        *self.state.manner.lock().unwrap() = manner;
    }

    pub fn mails(&self) -> Vec<Mail> {
        self.state.mails.lock().unwrap().clone()
    }

    pub fn heard(&self) -> Vec<String> {
        self.state.heard.lock().unwrap().clone()
    }
}

struct Dialogue<'a> {
    wire: Option<Wire>,
    security: Security,
    certificate: &'a Certificate,
    state: &'a State,
    manner: Manner,
    encrypted: bool,
    user: Option<String>,
    from: String,
    to: String,
}

impl<'a> Dialogue<'a> {
    fn new(
        stream: TcpStream,
        security: Security,
        certificate: &'a Certificate,
        state: &'a State,
    ) -> Self {
        let encrypted = security == Security::Tls;
        let wire = match security {
            Security::Tls => certificate.accept(stream),
            Security::Starttls | Security::Plain => Wire::Plain(stream),
        };
        Self {
            wire: Some(wire),
            security,
            certificate,
            state,
            manner: *state.manner.lock().unwrap(),
            encrypted,
            user: None,
            from: String::new(),
            to: String::new(),
        }
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        self.wire.as_mut().unwrap().say(text)
    }

    fn line(&mut self) -> io::Result<String> {
        let line = self.wire.as_mut().unwrap().line()?;
        self.state.heard.lock().unwrap().push(line.clone());
        Ok(line)
    }

    fn run(mut self) -> io::Result<()> {
        match self.manner {
            Manner::Hang => {
                // Until the client goes away.
                let mut rest = Vec::new();
                return self.wire.as_mut().unwrap().read_to_end(&mut rest).map(drop);
            }
            Manner::RefuseGreeting(code) => return self.say(&format!("{code} not now\r\n")),
            _ => self.say("220 relay.test ESMTP\r\n")?,
        }
        loop {
            let line = self.line()?;
            let verb = line.split([' ', ':']).next().unwrap().to_ascii_uppercase();
            match verb.as_str() {
                "EHLO" => self.ehlo()?,
                "STARTTLS" => self.starttls()?,
                "AUTH" => self.auth(&line)?,
                "MAIL" => {
                    self.from = bare(&line);
                    self.say("250 sender ok\r\n")?;
                }
                "RCPT" => self.recipient(&line)?,
                "DATA" => {
                    if !self.data()? {
                        return Ok(());
                    }
                }
                "QUIT" => return self.say("221 bye\r\n"),
                _ => self.say("502 what?\r\n")?,
            }
        }
    }

    fn ehlo(&mut self) -> io::Result<()> {
        let mut offers = vec!["250-relay.test".to_owned()];
        let in_clear = self.security == Security::Starttls && !self.encrypted;
        if in_clear && self.manner != Manner::NoStarttls {
            offers.push("250-STARTTLS".to_owned());
        } else if self.manner == Manner::OnlyLogin {
            offers.push("250-AUTH LOGIN".to_owned());
        } else {
            offers.push("250-AUTH PLAIN LOGIN".to_owned());
        }
        offers.push("250 8BITMIME\r\n".to_owned());
        self.say(&offers.join("\r\n"))
    }

    fn starttls(&mut self) -> io::Result<()> {
        if self.manner == Manner::Inject {
            return self.say("220 go\r\n250 injected\r\n");
        }
        self.say("220 go\r\n")?;
        let Some(Wire::Plain(stream)) = self.wire.take() else {
            panic!("STARTTLS twice");
        };
        self.wire = Some(self.certificate.accept(stream));
        self.encrypted = true;
        Ok(())
    }

    fn auth(&mut self, line: &str) -> io::Result<()> {
        let decode = |text: &str| String::from_utf8(STANDARD.decode(text).unwrap()).unwrap();
        let (user, password) = match line.strip_prefix("AUTH PLAIN ") {
            Some(response) => {
                let response = decode(response);
                let mut parts = response.split('\0').skip(1).map(str::to_owned);
                (parts.next().unwrap(), parts.next().unwrap())
            }
            None => {
                self.say("334 VXNlcm5hbWU6\r\n")?;
                let user = self.line()?;
                self.say("334 UGFzc3dvcmQ6\r\n")?;
                (decode(&user), decode(&self.line()?))
            }
        };
        if (user.as_str(), password.as_str()) == (USER, PASSWORD) {
            self.user = Some(user);
            self.say("235 welcome\r\n")
        } else {
            self.say("535 wrong\r\n")
        }
    }

    fn recipient(&mut self, line: &str) -> io::Result<()> {
        self.to = bare(line);
        match self.manner {
            Manner::RefuseRecipient(code) => {
                let to = self.to.clone();
                self.say(&format!("{code} <{to}> is not welcome\r\n"))
            }
            _ => self.say("250 recipient ok\r\n"),
        }
    }

    /// Whether the dialogue goes on.
    fn data(&mut self) -> io::Result<bool> {
        self.say("354 go on\r\n")?;
        let mut data = String::new();
        loop {
            let line = self.line()?;
            if self.manner == Manner::Drop {
                return Ok(false);
            }
            if line == "." {
                break;
            }
            data.push_str(line.strip_prefix('.').unwrap_or(&line));
            data.push_str("\r\n");
        }
        if let Manner::RefuseMessage(code) = self.manner {
            self.say(&format!("{code} no such words here\r\n"))?;
            return Ok(true);
        }
        let mail = Mail {
            from: self.from.clone(),
            to: self.to.clone(),
            data,
            encrypted: self.encrypted,
            user: self.user.clone(),
        };
        self.state.mails.lock().unwrap().push(mail);
        self.say("250 2.0.0 queued as 4711\r\n")?;
        Ok(true)
    }
}

/// The address between the angle brackets.
fn bare(line: &str) -> String {
    let (_, rest) = line.split_once('<').unwrap();
    rest.split_once('>').unwrap().0.to_owned()
}
