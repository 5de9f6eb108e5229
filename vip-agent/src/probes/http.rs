//! A GET that is answered with a status of 200 to 299.

use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::error::{Error, Result};

pub(super) async fn get(url: &str) -> Result<()> {
    let unwell = |what: String| Error::Unhealthy {
        what: format!("GET {url}: {what}"),
    };
    let uri: Uri = url.parse().map_err(|error| unwell(format!("{error}")))?;
    let host = uri.host().ok_or_else(|| unwell("it names no host".to_owned()))?;
    let port = uri.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await;
    let stream = stream.map_err(|source| Error::Io {
        doing: format!("GET {url}: connecting"),
        source,
    })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| unwell(error.to_string()))?;
    let request = Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header("host", uri.authority().map_or(host, |authority| authority.as_str()))
        .header("connection", "close")
        .body(Empty::<&[u8]>::new())
        .map_err(|error| unwell(error.to_string()))?;
    // The connection is driven only as long as the answer's head is awaited: the body is of no interest.
    let mut asked = std::pin::pin!(sender.send_request(request));
    let answer = tokio::select! {
        biased;
        answer = &mut asked => answer,
        // It may have ended right after it had handed over the answer.
        _ = connection => asked.await,
    };
    let status = answer.map_err(|error| unwell(error.to_string()))?.status();
    if status.is_success() {
        Ok(())
    } else {
        Err(unwell(format!("answered {status}")))
    }
}
