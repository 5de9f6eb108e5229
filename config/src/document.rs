//! The text of a configuration file, and the way from a key to its line.
//!
//! A key is written as an operator would say it: `cluster.nodes[1].address`.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::{fs, io};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::ConfigError;
use crate::raw;

pub(crate) struct Document {
    pub(crate) file: PathBuf,
    text: String,
}

impl Document {
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source: io::Error| ConfigError::Read {
            file: path.to_path_buf(),
            source,
        };
        let text = fs::read_to_string(path).map_err(unreadable)?;
        // Absolute, so that files named relative to it are found after the daemon has changed its directory.
        let file = std::path::absolute(path).map_err(unreadable)?;
        Ok(Self { file, text })
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn of(file: PathBuf, text: String) -> Self {
        Self { file, text }
    }

    /// The folder that relative paths start at.
    pub(crate) fn folder(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new("/"))
    }

    pub(crate) fn parse(&self) -> Result<raw::Config, ConfigError> {
        toml::from_str(&self.text).map_err(|error| self.syntax(&error))
    }

    /// An error about the value of a key; if the key isn't there, the line is that of the table it belongs to.
    pub(crate) fn wrong(&self, key: &str, problem: impl Into<String>, right: impl Into<String>) -> ConfigError {
        ConfigError::Value {
            file: self.file.clone(),
            line: self.line_of_key(key),
            key: key.to_owned(),
            problem: problem.into(),
            right: right.into(),
        }
    }

    fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        let span = error.span().unwrap_or(0..0);
        // The file's keys are tables' fields to serde, and keys to everybody else.
        let mut message = error.message().trim().replace("unknown field", "unknown key");
        let line = self.line_at(span.start);
        let mut key = self.key_at(span.start);
        if DeTable::parse(&self.text).is_err() {
            message.push_str("; the file is TOML: [table] or key = value, texts in \"double quotes\"");
            // What the parser made of a broken file can't be trusted to name the key.
            let text = self.text.lines().nth(line - 1).unwrap_or_default();
            key = text.split_once('=').map(|(name, _)| name.trim().to_owned());
        }
        let key = key.unwrap_or_else(|| "syntax".to_owned());
        ConfigError::Syntax {
            file: self.file.clone(),
            line,
            key,
            message,
        }
    }

    fn line_at(&self, offset: usize) -> usize {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        before.iter().filter(|&&byte| byte == b'\n').count() + 1
    }

    fn line_of_key(&self, key: &str) -> usize {
        let Ok(root) = DeTable::parse(&self.text) else { return 1 };
        let mut table = root.get_ref();
        let mut offset = 0;
        for step in key.split('.') {
            let (name, index) = split_index(step);
            let Some((found, value)) = table.iter().find(|(have, _)| have.get_ref().as_ref() == name) else {
                break;
            };
            offset = found.span().start;
            let element = index.and_then(|index| value.get_ref().as_array()?.get(index));
            if let Some(element) = element {
                offset = element.span().start;
            }
            match element.unwrap_or(value).get_ref().as_table() {
                Some(inner) => table = inner,
                None => break,
            }
        }
        self.line_at(offset)
    }

    /// The key whose name or value stands at this place.
    fn key_at(&self, offset: usize) -> Option<String> {
        let (root, _) = DeTable::parse_recoverable(&self.text);
        let mut best = None;
        for (name, value) in root.get_ref() {
            narrowest(name.get_ref(), &name.span(), value, offset, &mut best);
        }
        best.map(|(_, key)| key)
    }
}

/// `nodes[1]` is `nodes` and 1.
fn split_index(step: &str) -> (&str, Option<usize>) {
    match step.strip_suffix(']').and_then(|step| step.split_once('[')) {
        Some((name, index)) => (name, index.parse().ok()),
        None => (step, None),
    }
}

/// Remembers the key if its name or its value covers `offset` more narrowly than what was found before.
fn narrowest(
    key: &str,
    name: &Range<usize>,
    value: &Spanned<DeValue<'_>>,
    offset: usize,
    best: &mut Option<(usize, String)>,
) {
    for span in [name.clone(), value.span()] {
        let narrower = best.as_ref().is_none_or(|(length, _)| span.len() <= *length);
        if span.contains(&offset) && narrower {
            *best = Some((span.len(), key.to_owned()));
        }
    }
    match value.get_ref() {
        DeValue::Table(table) => {
            for (name, value) in table {
                narrowest(&format!("{key}.{}", name.get_ref()), &name.span(), value, offset, best);
            }
        }
        DeValue::Array(array) => {
            for (index, value) in array.iter().enumerate() {
                narrowest(&format!("{key}[{index}]"), &value.span(), value, offset, best);
            }
        }
        _ => {}
    }
}
