//! Which directories get a class when they are made.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use crate::document::Document;
use crate::error::ConfigError;
use crate::{CLASSES, ClassRule};

pub(crate) fn check(document: &Document, raw: BTreeMap<String, String>) -> Result<Vec<ClassRule>, ConfigError> {
    let mut rules: Vec<ClassRule> = Vec::new();
    for (text, class) in raw {
        let path = Path::new(&text);
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        if text.is_empty() || !plain {
            let right = "a directory below the mount, such as \"pbx/recordings\": relative, without \"..\"";
            return Err(document.wrong("classes", format!("{text:?} can't be used"), right));
        }
        if !CLASSES.contains(&class.as_str()) {
            let right = format!("one of {}", CLASSES.join(", "));
            return Err(document.wrong("classes", format!("{text:?} = {class:?} is no class"), right));
        }
        // Without repeated slashes, so that the same place is the same path.
        let path = path.components().collect();
        if rules.iter().any(|rule| rule.path == path) {
            return Err(document.wrong("classes", format!("{text:?} is given twice"), "each directory once"));
        }
        rules.push(ClassRule { path, class });
    }
    Ok(rules)
}
