//! Is it well? By command, by TCP connection, or by HTTP; each ends by its limit.

mod command;
mod http;
mod tcp;

use std::time::Duration;

use holdfast_config::Health;

pub(crate) use command::run;

use crate::error::{Error, Result};

pub(crate) async fn probe(health: &Health, within: Duration) -> Result<()> {
    match health {
        Health::Command(words) => run(words, within).await,
        Health::Tcp(address) => limited(within, &format!("connecting to {address}"), tcp::connect(*address)).await,
        Health::Http(url) => limited(within, &format!("GET {url}"), http::get(url)).await,
    }
}

async fn limited(within: Duration, doing: &str, probe: impl Future<Output = Result<()>>) -> Result<()> {
    let slow = || Error::Unhealthy {
        what: format!("{doing}: no answer within {within:?}"),
    };
    tokio::time::timeout(within, probe)
        .await
        .unwrap_or_else(|_| Err(slow()))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const WITHIN: Duration = Duration::from_millis(300);

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    async fn answering(answer: &'static str) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            tokio::time::sleep(Duration::from_secs(5)).await;
        });
        address
    }

    #[tokio::test]
    async fn a_command_is_judged_by_its_exit_code_and_its_time() {
        assert!(run(&words("true"), WITHIN).await.is_ok());
        let failed = run(&words("ls /no/such/folder"), WITHIN).await.unwrap_err().sentence();
        assert!(failed.contains("No such file"), "{failed}");
        assert!(matches!(
            run(&words("sleep 5"), WITHIN).await,
            Err(Error::CommandSlow { .. })
        ));
        assert!(matches!(
            run(&words("/no/such/program"), WITHIN).await,
            Err(Error::Spawn { .. })
        ));
    }

    #[tokio::test]
    async fn a_connection_is_enough_for_tcp() {
        let address = answering("").await;
        assert!(probe(&Health::Tcp(address), WITHIN).await.is_ok());
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert!(probe(&Health::Tcp(closed), WITHIN).await.is_err());
    }

    #[tokio::test]
    async fn http_wants_a_status_of_200_to_299() {
        let url = |address| Health::Http(format!("http://{address}/health"));
        let well = answering("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert!(probe(&url(well), WITHIN).await.is_ok());
        let sick = answering("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
        let said = probe(&url(sick), WITHIN).await.unwrap_err().sentence();
        assert!(said.contains("503"), "{said}");
        let silent = answering("").await;
        assert!(probe(&url(silent), WITHIN).await.is_err());
    }
}
