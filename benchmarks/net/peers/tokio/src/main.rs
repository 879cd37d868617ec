// SPDX-License-Identifier: MIT

//! The servers on tokio's current-thread runtime: a task a connection. The modes are those of
//! ../../load.cpp; TLS, if it is compiled in, is rustls with ring.

use std::io::Result;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

const ROOM: usize = 64 * 1024;
const SINK_UNIT: usize = 16 * 1024 * 1024;

#[derive(Clone, Copy)]
enum Mode {
    Echo,
    Sink,
    Source,
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<()> {
    let mut data = vec![0; ROOM];
    loop {
        let length = stream.read(&mut data).await?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&data[..length]).await?;
        stream.flush().await?; // nothing with a plain socket
    }
}

async fn sink<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<()> {
    let mut data = vec![0; ROOM];
    let mut received = 0;
    loop {
        let length = stream.read(&mut data).await?;
        if length == 0 {
            return Ok(());
        }
        received += length;
        if received >= SINK_UNIT {
            received -= SINK_UNIT;
            stream.write_all(b".").await?;
            stream.flush().await?;
        }
    }
}

async fn source<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<()> {
    let data: Vec<u8> = (0..ROOM).map(|i| i as u8).collect();
    loop {
        stream.write_all(&data).await?;
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, mode: Mode) -> Result<()> {
    match mode {
        Mode::Echo => echo(&mut stream).await?,
        Mode::Sink => sink(&mut stream).await?,
        Mode::Source => source(&mut stream).await?,
    }
    stream.shutdown().await
}

#[cfg(feature = "tls")]
mod tls {
    use super::*;
    use std::sync::Arc;
    use tokio_rustls::rustls::pki_types::{pem::PemObject, CertificateDer, PrivateKeyDer};
    use tokio_rustls::{rustls::ServerConfig, TlsAcceptor};

    pub fn acceptor(file: &str) -> TlsAcceptor {
        let chain = CertificateDer::pem_file_iter(file)
            .unwrap()
            .map(|each| each.unwrap())
            .collect();
        let key = PrivateKeyDer::from_pem_file(file).unwrap();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    pub async fn encrypted(acceptor: TlsAcceptor, stream: TcpStream, mode: Mode) -> Result<()> {
        serve(acceptor.accept(stream).await?, mode).await
    }
}

async fn accept(name: String, certificate: Option<String>) -> Result<()> {
    let mode = if name.ends_with("sink") {
        Mode::Sink
    } else if name.ends_with("source") {
        Mode::Source
    } else {
        Mode::Echo
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    #[cfg(feature = "tls")]
    let acceptor = certificate.as_deref().map(tls::acceptor);
    #[cfg(not(feature = "tls"))]
    assert!(certificate.is_none(), "built without TLS");
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        #[cfg(feature = "tls")]
        if let Some(acceptor) = &acceptor {
            tokio::spawn(tls::encrypted(acceptor.clone(), stream, mode));
            continue;
        }
        tokio::spawn(serve(stream, mode));
    }
}

async fn datagrams() -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    println!("{}", socket.local_addr()?.port());
    let mut data = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut data).await?;
        socket.send_to(&data[..length], from).await?;
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let mode = words.next().unwrap_or_default();
    if mode == "--modes" {
        let tls = if cfg!(feature = "tls") {
            "tls tls_sink tls_source "
        } else {
            ""
        };
        println!("streams sink source {}udp", tls);
        return Ok(());
    }
    // A spawned task, as tokio's manual advises: the future of `block_on` is polled in a slower way.
    let server = if mode == "udp" {
        tokio::spawn(datagrams())
    } else {
        tokio::spawn(accept(mode, words.next()))
    };
    server.await?
}
