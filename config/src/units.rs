//! The PBX's parts: how each is started, stopped and asked whether it is well.

use std::net::SocketAddr;

use crate::check::{Number, is_word, millis, need};
use crate::document::Document;
use crate::error::ConfigError;
use crate::{Health, Unit, UnitControl, raw};

const TIMEOUT_MS_MAX: u64 = 3_600_000;

pub(crate) fn check(document: &Document, raw: Vec<raw::Unit>) -> Result<Vec<Unit>, ConfigError> {
    let mut units: Vec<Unit> = Vec::new();
    for (index, raw) in raw.into_iter().enumerate() {
        let unit = Entry { document, index }.unit(raw)?;
        if units.iter().any(|other| other.name == unit.name) {
            let problem = format!("{:?} is the name of two units", unit.name);
            return Err(document.wrong(
                &format!("unit[{index}].name"),
                problem,
                "a name of its own for each unit",
            ));
        }
        units.push(unit);
    }
    Ok(units)
}

/// One `[[unit]]` of the file.
struct Entry<'a> {
    document: &'a Document,
    index: usize,
}

impl Entry<'_> {
    fn key(&self, name: &str) -> String {
        format!("unit[{}].{name}", self.index)
    }

    fn wrong(&self, name: &str, problem: impl Into<String>, right: &str) -> ConfigError {
        self.document.wrong(&self.key(name), problem, right)
    }

    fn unit(&self, mut raw: raw::Unit) -> Result<Unit, ConfigError> {
        let right = "1 to 64 letters, digits, dots, dashes or underscores";
        let name = need(self.document, &self.key("name"), raw.name.take(), right)?;
        if !is_word(&name, 64, |c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
            return Err(self.wrong("name", format!("{name:?} is no name of a unit"), right));
        }
        let control = self.control(&mut raw)?;
        let health = self.health(&mut raw)?;
        let default = Unit::new(&name, control);
        let ms = |name: &str, value, default, max| millis(self.document, &self.key(name), value, default, 100..=max);
        let failures = Number {
            document: self.document,
            key: &self.key("health_failures"),
            unit: "",
        }
        .within(raw.health_failures, default.health_failures.into(), 1..=100)?;
        Ok(Unit {
            health,
            health_every: ms("health_every_ms", raw.health_every_ms, default.health_every, 600_000)?,
            health_failures: u32::try_from(failures).expect("at most 100"),
            start_timeout: ms(
                "start_timeout_ms",
                raw.start_timeout_ms,
                default.start_timeout,
                TIMEOUT_MS_MAX,
            )?,
            stop_timeout: ms(
                "stop_timeout_ms",
                raw.stop_timeout_ms,
                default.stop_timeout,
                TIMEOUT_MS_MAX,
            )?,
            ..default
        })
    }

    fn control(&self, raw: &mut raw::Unit) -> Result<UnitControl, ConfigError> {
        let commands = [
            ("start", &raw.start),
            ("stop", &raw.stop),
            ("status", &raw.status),
            ("kill", &raw.kill),
        ];
        if let Some(unit) = raw.systemd.take() {
            if let Some((name, _)) = commands.iter().find(|(_, command)| command.is_some()) {
                return Err(self.wrong(
                    name,
                    "stands beside systemd",
                    "either systemd, or start, stop and status",
                ));
            }
            let (stem, kind) = unit.rsplit_once('.').unwrap_or((&unit, ""));
            let known = matches!(kind, "service" | "target" | "socket" | "scope" | "slice");
            if stem.is_empty() || !known || unit.contains(['/', ' ']) {
                let right = "the name of a systemd unit with its ending, such as \"portsip.service\"";
                return Err(self.wrong("systemd", format!("{unit:?} is no systemd unit"), right));
            }
            return Ok(UnitControl::Systemd { unit });
        }
        let right = "a unit has either systemd = \"NAME.service\", or the three commands start, stop and status";
        let command = |name: &str, value: Option<Vec<String>>| {
            let command = need(self.document, &self.key(name), value, right)?;
            self.command(name, command)
        };
        Ok(UnitControl::Command {
            start: command("start", raw.start.take())?,
            stop: command("stop", raw.stop.take())?,
            status: command("status", raw.status.take())?,
            kill: raw
                .kill
                .take()
                .map_or(Ok(Vec::new()), |kill| self.command("kill", kill))?,
        })
    }

    fn health(&self, raw: &mut raw::Unit) -> Result<Option<Health>, ConfigError> {
        let (command, tcp, http) = (raw.health_command.take(), raw.health_tcp.take(), raw.health_http.take());
        match (command, tcp, http) {
            (None, None, None) => Ok(None),
            (Some(command), None, None) => self.command("health_command", command).map(Health::Command).map(Some),
            (None, Some(tcp), None) => self.tcp(&tcp).map(Some),
            (None, None, Some(http)) => self.http(http).map(Some),
            (None, Some(_), Some(_)) => Err(self.two_healths("health_http")),
            (Some(_), Some(_), _) => Err(self.two_healths("health_tcp")),
            (Some(_), None, Some(_)) => Err(self.two_healths("health_http")),
        }
    }

    fn two_healths(&self, name: &str) -> ConfigError {
        self.wrong(
            name,
            "is a second health check",
            "one of health_command, health_tcp and health_http",
        )
    }

    fn command(&self, name: &str, command: Vec<String>) -> Result<Vec<String>, ConfigError> {
        let right = "a program's absolute path and its arguments, such as [\"/usr/bin/docker\", \"stop\", \"db\"]";
        match command.first() {
            None => Err(self.wrong(name, "is empty", right)),
            Some(program) if program.starts_with('/') && !command.iter().any(|word| word.contains('\0')) => Ok(command),
            Some(program) => Err(self.wrong(name, format!("{program:?} is no absolute path"), right)),
        }
    }

    fn tcp(&self, text: &str) -> Result<Health, ConfigError> {
        let address = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
        let right = "an IP address and a port, such as \"127.0.0.1:5432\"";
        address
            .map(Health::Tcp)
            .ok_or_else(|| self.wrong("health_tcp", format!("{text:?} can't be reached"), right))
    }

    fn http(&self, url: String) -> Result<Health, ConfigError> {
        let right = "http://HOST:PORT/PATH; https isn't supported, for the probe stays on this machine";
        let host = url.strip_prefix("http://").and_then(|rest| rest.split('/').next());
        if host.is_none_or(str::is_empty) || url.contains(char::is_whitespace) {
            return Err(self.wrong("health_http", format!("{url:?} can't be asked"), right));
        }
        Ok(Health::Http(url))
    }
}
