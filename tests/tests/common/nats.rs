//! A client of NATS JetStream, as far as the test needs one: the protocol is lines of text.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

pub(crate) const PORT: u16 = 4222;
const LIMIT: Duration = Duration::from_secs(3);

pub(crate) struct Nats {
    stream: BufReader<TcpStream>,
    /// Where this connection's answers go, and no other's.
    inbox: String,
}

pub(crate) struct Message {
    pub(crate) headers: String,
    pub(crate) payload: String,
}

impl Nats {
    /// From the network namespace of the calling thread.
    pub(crate) fn connect(server: Ipv4Addr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&SocketAddr::new(server.into(), PORT), LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        let mut client = Self {
            stream: BufReader::new(stream),
            inbox: format!("_INBOX.{:016x}", rand::random::<u64>()),
        };
        ensure!(client.line()?.starts_with("INFO "), "not a NATS server");
        let hello = r#"CONNECT {"verbose":false,"headers":true,"no_responders":true}"#;
        let inbox = client.inbox.clone();
        client.send(&format!("{hello}\r\nSUB {inbox} 1\r\nPING\r\n"))?;
        while client.line()? != "PONG" {}
        Ok(client)
    }

    /// Sends a message and waits for its answer.
    pub(crate) fn request(&mut self, subject: &str, id: Option<&str>, payload: &str) -> Result<Message> {
        let headers = match id {
            Some(id) => format!("NATS/1.0\r\nNats-Msg-Id: {id}\r\n\r\n"),
            None => "NATS/1.0\r\n\r\n".to_owned(),
        };
        let inbox = self.inbox.clone();
        let (head, total) = (headers.len(), headers.len() + payload.len());
        self.send(&format!(
            "HPUB {subject} {inbox} {head} {total}\r\n{headers}{payload}\r\n"
        ))?;
        loop {
            let line = self.line()?;
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["INFO", ..] => {}
                ["PING"] => self.send("PONG\r\n")?,
                ["MSG", .., length] => return self.message(0, length.parse()?),
                ["HMSG", .., head, total] => return self.message(head.parse()?, total.parse()?),
                _ => bail!("the server says {line}"),
            }
        }
    }

    fn message(&mut self, head: usize, total: usize) -> Result<Message> {
        let mut bytes = vec![0; total + 2];
        self.stream.read_exact(&mut bytes)?;
        let text = String::from_utf8(bytes[..total].to_vec())?;
        let (headers, payload) = text.split_at_checked(head).context("odd length of headers")?;
        Ok(Message {
            headers: headers.to_owned(),
            payload: payload.to_owned(),
        })
    }

    fn send(&mut self, text: &str) -> Result<()> {
        Ok(self.stream.get_mut().write_all(text.as_bytes())?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line)? > 0, "the server hung up");
        Ok(line.trim_end().to_owned())
    }
}
