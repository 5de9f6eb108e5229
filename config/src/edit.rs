//! Changes a configuration file as an operator would: whatever else is in it, comments too, stays as it is.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Item, TableLike, Value};

use crate::document::Document;
use crate::error::ConfigError;
use crate::{Cluster, Config, check, defaults};

/// The text of this file with these addresses, ports and removals.
pub fn with_places(file: &Path, cluster: &Cluster) -> Result<String, ConfigError> {
    let document = Document::read(file)?;
    let mut text = parse(&document)?;
    for (index, node) in cluster.nodes.iter().enumerate() {
        let missing = || document.wrong("cluster.nodes", "isn't a list of tables", "three [[cluster.nodes]]");
        let table = node_at(&mut text, index).ok_or_else(missing)?;
        set(table, "address", node.address.to_string().into(), None);
        let port = |port: u16| Value::from(i64::from(port));
        set(
            table,
            "replication_port",
            port(node.replication_port),
            Some(port(defaults::REPLICATION_PORT)),
        );
        set(
            table,
            "control_port",
            port(node.control_port),
            Some(port(defaults::CONTROL_PORT)),
        );
        set(table, "removed", node.removed.into(), Some(false.into()));
    }
    let revision = Value::from(i64::try_from(cluster.revision).unwrap_or(i64::MAX));
    if let Some(table) = text.get_mut("cluster").and_then(Item::as_table_like_mut) {
        set(table, "revision", revision, Some(0.into()));
    }
    checked(&document.file, &text).map(|(text, _)| text)
}

/// Paths that differ from those of the node that a configuration comes from.
#[derive(Debug, Clone, Default)]
pub struct Elsewhere {
    pub store: Option<String>,
    pub mount: Option<String>,
    pub socket: Option<String>,
}

/// Another node's configuration made this one's: what differs between nodes is the name and where the keys are. `file` is
/// where it shall be; its certificate and key lie beside it under the names that `holdfast init` gives them.
pub fn for_node(text: &str, node: &str, file: &Path, paths: &Elsewhere) -> Result<(String, Config), ConfigError> {
    let document = Document::of(file, text);
    let mut changed = parse(&document)?;
    let root = changed.as_table_mut();
    set(root, "node", node.into(), None);
    if let Some(socket) = &paths.socket {
        set(root, "socket", socket.into(), None);
    }
    for (table, path) in [("store", &paths.store), ("mount", &paths.mount)] {
        if let Some(path) = path {
            let table = root.entry(table).or_insert_with(toml_edit::table);
            let table = table.as_table_like_mut();
            table
                .into_iter()
                .for_each(|table| set(table, "path", path.into(), None));
        }
    }
    if let Some(tls) = changed.get_mut("tls").and_then(Item::as_table_like_mut) {
        for (key, name) in [("ca", "ca.pem"), ("cert", "node.pem"), ("key", "node.key")] {
            set(tls, key, name.into(), None);
        }
    }
    checked(&document.file, &changed)
}

/// Puts the text in the file's place at once, or leaves the file as it is. Owner and mode stay; a link stays one.
pub fn replace(file: &Path, text: &str) -> io::Result<()> {
    let file = &std::fs::canonicalize(file)?;
    let had = std::fs::metadata(file)?;
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let write = || {
        let mut out = File::create(&new)?;
        out.set_permissions(Permissions::from_mode(had.mode() & 0o7777))?;
        chown(&new, Some(had.uid()), Some(had.gid()))?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        std::fs::rename(&new, file)?;
        File::open(file.parent().unwrap_or(Path::new("/")))?.sync_all()
    };
    write().inspect_err(|_| drop(std::fs::remove_file(&new)))
}

fn parse(document: &Document) -> Result<DocumentMut, ConfigError> {
    // First as everybody reads it, for its better words.
    document.parse()?;
    let parsed = document.text.parse::<DocumentMut>();
    parsed.map_err(|error| document.wrong("syntax", error.to_string(), "a TOML file"))
}

fn checked(file: &Path, text: &DocumentMut) -> Result<(String, Config), ConfigError> {
    let text = text.to_string();
    let config = check::config(&Document::of(file, &text))?;
    Ok((text, config))
}

/// As `[[cluster.nodes]]`, or as a list of `{ … }`.
fn node_at(text: &mut DocumentMut, index: usize) -> Option<&mut dyn TableLike> {
    match text.get_mut("cluster")?.as_table_like_mut()?.get_mut("nodes")? {
        Item::ArrayOfTables(tables) => tables.get_mut(index).map(|table| table as &mut dyn TableLike),
        Item::Value(Value::Array(list)) => list.get_mut(index)?.as_inline_table_mut().map(|table| table as _),
        _ => None,
    }
}

/// What a missing key means needn't be written.
fn set(table: &mut dyn TableLike, key: &str, mut value: Value, default: Option<Value>) {
    let same = |one: &Value, other: &Value| one.to_string().trim() == other.to_string().trim();
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(had) if same(had, &value) => {}
        Some(had) => {
            *value.decor_mut() = had.decor().clone();
            *had = value;
        }
        None if default.is_some_and(|default| same(&default, &value)) => {}
        None => drop(table.insert(key, Item::Value(value))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# As made by hand.
version = 1
node = "n1" # here
[cluster]
name = "pbx"
id = "0123"
nodes = [
    { name = "n1", address = "10.0.0.131" },
    { name = "n2", address = "10.0.0.132", control_port = 7500 }, # in the cellar
    { name = "n3", address = "10.0.0.133" },
]
[tls]
ca = "/keys/ca.pem"
cert = "/keys/n1.pem"
key = "/keys/n1.key"
"#;

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("holdfast.toml");
        std::fs::write(&file, text).unwrap();
        (folder, file)
    }

    #[test]
    fn only_what_changes_changes() {
        let (_folder, file) = written(TEXT);
        let mut cluster = crate::load_without_keys(&file).unwrap().cluster;
        assert_eq!(with_places(&file, &cluster).unwrap(), TEXT);
        cluster.revision = 7;
        cluster.nodes[1].address = "10.9.0.2".parse().unwrap();
        cluster.nodes[2].removed = true;
        let text = with_places(&file, &cluster).unwrap();
        let expected = TEXT
            .replace("10.0.0.132", "10.9.0.2")
            .replace("\"10.0.0.133\" }", "\"10.0.0.133\" , removed = true }");
        let without: Vec<&str> = text.lines().filter(|line| !line.contains("revision")).collect();
        assert_eq!(without, expected.lines().collect::<Vec<_>>(), "{text}");
        replace(&file, &text).unwrap();
        assert_eq!(crate::load_without_keys(&file).unwrap().cluster, cluster);
        cluster.nodes[2].removed = false;
        replace(&file, &with_places(&file, &cluster).unwrap()).unwrap();
        assert_eq!(crate::load_without_keys(&file).unwrap().cluster, cluster);
    }

    #[test]
    fn what_init_makes_can_be_edited() {
        let (_folder, file) = written(TEXT);
        let mut config = crate::load_without_keys(&file).unwrap();
        std::fs::write(&file, crate::render(&config)).unwrap();
        config.cluster.nodes[0].replication_port = 8000;
        config.cluster.nodes[0].control_port = 8001;
        config.cluster.revision = 1;
        replace(&file, &with_places(&file, &config.cluster).unwrap()).unwrap();
        assert_eq!(crate::load_without_keys(&file).unwrap(), config);
    }

    #[test]
    fn a_clash_of_addresses_is_refused() {
        let (_folder, file) = written(TEXT);
        let mut cluster = crate::load_without_keys(&file).unwrap().cluster;
        cluster.nodes[1].address = cluster.nodes[0].address;
        let said = with_places(&file, &cluster).unwrap_err().to_string();
        assert!(said.contains("is the address of both n1 and n2"), "{said}");
    }

    #[test]
    fn one_nodes_file_is_made_anothers() {
        let file = Path::new("/etc/holdfast/holdfast.toml");
        let paths = Elsewhere {
            store: Some("/srv/store".into()),
            ..Elsewhere::default()
        };
        let (text, config) = for_node(TEXT, "n3", file, &paths).unwrap();
        assert_eq!(config.store.path, Path::new("/srv/store"));
        assert!(text.contains("node = \"n3\" # here"), "{text}");
        assert_eq!(config.this, 2);
        assert_eq!(config.tls.key, Path::new("/etc/holdfast/node.key"));
        let said = for_node(TEXT, "n4", file, &paths).unwrap_err().to_string();
        assert!(said.contains("no node is named \"n4\""), "{said}");
    }
}
