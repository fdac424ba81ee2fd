//! A bare connection, for requests that no client library sends: malformed, half sent, cut off.

use std::collections::HashMap;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A bare connection.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    /// What came behind the last response.
    ahead: Vec<u8>,
}

/// What came back on one.
#[derive(Debug)]
pub struct RawReply {
    /// The status, or none when the connection ended before a whole head was here.
    pub status: Option<u16>,
    /// The headers, names in lower case.
    pub headers: HashMap<String, String>,
    /// As much of the body as came.
    pub body: Vec<u8>,
    /// How it ended.
    pub end: End,
}

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With its last byte.
    Whole,
    /// The connection was closed before.
    Closed,
    /// The connection was reset before.
    Reset,
}

// === impl Raw ===

impl Raw {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            ahead: Vec::new(),
        }
    }

    /// Sends bytes as they are; fails when the other side has reset the connection.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// Reads one response to a request other than HEAD, an interim one too.
    pub async fn reply(&mut self) -> RawReply {
        let mut reply = RawReply {
            status: None,
            headers: HashMap::new(),
            body: Vec::new(),
            end: End::Whole,
        };
        let mut buffer = std::mem::take(&mut self.ahead);
        let head_length = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            if let Err(end) = self.read_into(&mut buffer).await {
                reply.end = end;
                return reply;
            }
        };
        reply.body = buffer.split_off(head_length + 4);
        let head = String::from_utf8(buffer).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        reply.status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1)?.parse().ok());
        reply.headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let length = reply.headers.get("content-length");
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        while reply.body.len() < length {
            if let Err(end) = self.read_into(&mut reply.body).await {
                reply.end = end;
                return reply;
            }
        }
        self.ahead = reply.body.split_off(length);
        reply
    }

    async fn read_into(&mut self, buffer: &mut Vec<u8>) -> Result<(), End> {
        match self.stream.read_buf(buffer).await {
            Ok(0) => Err(End::Closed),
            Ok(_) => Ok(()),
            Err(_) => Err(End::Reset),
        }
    }

    /// Ends the connection as a client does that dies: with a reset.
    pub fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }

    /// Ends the sending half only.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }
}
