//! A stand-in for the daemon's control service: canned answers on a Unix socket.

use std::path::{Path, PathBuf};
use std::pin::Pin;

use holdfast_proto::control::check_event::Event;
use holdfast_proto::control::control_server::{Control, ControlServer};
use holdfast_proto::control::{
    CheckDifference, CheckEvent, CheckProgress, CheckRequest, CheckVerdict, Classes, ClusterStatus,
    ClusterStatusRequest, Configuration, ConfigurationRequest, ConfiguredClass, GivenClass, ListClassesRequest,
    NodeStatus, NodeStatusRequest, PeerView, Role, ScrubEvent, ScrubRequest, SwitchoverEvent, SwitchoverRequest,
};
use tokio::runtime::Runtime;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// Serves until dropped.
pub(crate) struct Daemon {
    folder: tempfile::TempDir,
    _runtime: Runtime,
}

/// What it answers.
#[derive(Clone, Default)]
pub(crate) struct Answers {
    pub(crate) active: Option<&'static str>,
    pub(crate) differences: u64,
    pub(crate) not_checked: Vec<String>,
    /// Ends the stream of a check before its verdict.
    pub(crate) cut_short: bool,
}

impl Daemon {
    pub(crate) fn with(answers: Answers) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::new().unwrap();
        let socket = folder.path().join("socket");
        let listener = runtime.block_on(async { tokio::net::UnixListener::bind(&socket).unwrap() });
        let service = Server::builder().add_service(ControlServer::new(answers));
        runtime.spawn(service.serve_with_incoming(UnixListenerStream::new(listener)));
        Self {
            folder,
            _runtime: runtime,
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path().join("socket")
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

type Events<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

fn events<T: Send + 'static>(events: Vec<T>) -> Response<Events<T>> {
    Response::new(Box::pin(tokio_stream::iter(events.into_iter().map(Ok))))
}

fn node(name: &str, role: Role) -> PeerView {
    let status = NodeStatus {
        name: name.into(),
        role: role.into(),
        mounted: true,
        ..NodeStatus::default()
    };
    PeerView {
        status: Some(status),
        last_heard_unix_ms: 1,
        reachable: true,
        address: String::new(),
        removed: false,
    }
}

#[tonic::async_trait]
impl Control for Answers {
    type CheckStream = Events<CheckEvent>;
    type ScrubStream = Events<ScrubEvent>;
    type SwitchoverStream = Events<SwitchoverEvent>;

    async fn get_node_status(&self, _: Request<NodeStatusRequest>) -> Result<Response<NodeStatus>, Status> {
        Ok(Response::new(NodeStatus::default()))
    }

    async fn get_cluster_status(&self, _: Request<ClusterStatusRequest>) -> Result<Response<ClusterStatus>, Status> {
        let role = |name| {
            if self.active == Some(name) {
                Role::Active
            } else {
                Role::Standby
            }
        };
        let nodes = ["n1", "n2", "n3"].map(|name| node(name, role(name))).to_vec();
        let active = self.active.unwrap_or_default().to_owned();
        Ok(Response::new(ClusterStatus {
            cluster: "pbx".into(),
            active,
            nodes,
            ..ClusterStatus::default()
        }))
    }

    async fn get_configuration(&self, _: Request<ConfigurationRequest>) -> Result<Response<Configuration>, Status> {
        Err(Status::unimplemented("no command asks this of its own daemon"))
    }

    async fn check(&self, _: Request<CheckRequest>) -> Result<Response<Self::CheckStream>, Status> {
        let (groups, odd_one_out) = (vec!["n1+n3".into(), "n2".into()], "n2".into());
        let difference = CheckDifference {
            what: "inode 17".into(),
            path: "a.wav".into(),
            groups,
            odd_one_out,
            mended: String::new(),
        };
        let verdict = CheckVerdict {
            same: self.differences == 0,
            differences: self.differences,
            not_checked: self.not_checked.clone(),
            ..CheckVerdict::default()
        };
        let mut all = vec![Event::Progress(CheckProgress::default())];
        all.extend((0..self.differences).map(|_| Event::Difference(difference.clone())));
        all.extend((!self.cut_short).then_some(Event::Verdict(verdict)));
        Ok(events(
            all.into_iter().map(|event| CheckEvent { event: Some(event) }).collect(),
        ))
    }

    async fn list_classes(&self, _: Request<ListClassesRequest>) -> Result<Response<Classes>, Status> {
        let rule = |path: &str, class: &str, is: &str| ConfiguredClass {
            path: path.into(),
            class: class.into(),
            is: is.into(),
        };
        let given = |path: &str, class: &str, by_hand| GivenClass {
            path: path.into(),
            class: class.into(),
            by_hand,
            since_unix_ms: 1_700_000_000_000,
            inode: 9,
        };
        Ok(Response::new(Classes {
            mount_path: "/var/lib/portsip".into(),
            given: vec![
                given("archive", "prompts", true),
                given("postgresql", "database", false),
            ],
            configured: vec![
                rule("pbx/log", "logs", "default"),
                rule("pbx/recordings", "recordings", ""),
                rule("postgresql", "database", "database"),
            ],
            active: "n1".into(),
            asked: "n1".into(),
        }))
    }

    async fn scrub(&self, _: Request<ScrubRequest>) -> Result<Response<Self::ScrubStream>, Status> {
        let damaged = (0..self.differences)
            .map(|at| format!("inode {at}: nobody has it"))
            .collect();
        Ok(events(vec![
            ScrubEvent::default(),
            ScrubEvent {
                done: true,
                damaged,
                ..ScrubEvent::default()
            },
        ]))
    }

    async fn switchover(
        &self,
        request: Request<SwitchoverRequest>,
    ) -> Result<Response<Self::SwitchoverStream>, Status> {
        let to = request.into_inner().to;
        if to == "n9" {
            return Err(Status::invalid_argument(
                "no node is named n9; choose one of n1, n2, n3",
            ));
        }
        let step = SwitchoverEvent {
            step: "stopping the PBX".into(),
            ..SwitchoverEvent::default()
        };
        Ok(events(vec![
            step,
            SwitchoverEvent {
                done: true,
                active: to,
                ..SwitchoverEvent::default()
            },
        ]))
    }
}
