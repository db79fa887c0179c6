//! Plain HTTP/1.1 load: connections that ask as fast as they are answered.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

use crate::Outcome;

/// How the requests of a slice end.
pub(crate) enum Until {
    Elapsed(Duration),
    /// So many on each connection.
    Count(u64),
}

/// `load ADDRESS CONNECTIONS MILLISECONDS`: prints how many requests were answered.
pub(crate) fn run(args: &[String]) -> Outcome<()> {
    let [address, connections, millis] = args else {
        return Err("usage: load ADDRESS CONNECTIONS MILLISECONDS".into());
    };
    let until = Until::Elapsed(Duration::from_millis(millis.parse()?));
    println!("{}", requests(address.parse()?, connections.parse()?, &until)?);
    Ok(())
}

/// Sends requests and counts the answers.
pub(crate) fn requests(address: SocketAddr, connections: usize, until: &Until) -> Outcome<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let all = (0..connections).map(|_| connection(address, until));
        let counts = futures_util::future::try_join_all(all).await?;
        Ok(counts.iter().sum())
    })
}

async fn connection(address: SocketAddr, until: &Until) -> Outcome<u64> {
    const REQUEST: &[u8] = b"GET /orders/7 HTTP/1.1\r\nhost: bench\r\nuser-agent: bench\r\n\r\n";
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (start, mut count) = (Instant::now(), 0);
    let mut answer = vec![0; 8 * 1024];
    loop {
        let is_over = match until {
            Until::Elapsed(time) => start.elapsed() >= *time,
            Until::Count(most) => count >= *most,
        };
        if is_over {
            return Ok(count);
        }
        stream.write_all(REQUEST).await?;
        let mut filled = 0;
        while !is_whole(&answer[..filled])? {
            let read = stream.read(&mut answer[filled..]).await?;
            if read == 0 {
                return Err("the server closed the connection".into());
            }
            filled += read;
        }
        count += 1;
    }
}

/// Whether an answer with a `content-length` is all there.
fn is_whole(answer: &[u8]) -> Outcome<bool> {
    let Some(head) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return Ok(false);
    };
    let text = std::str::from_utf8(&answer[..head])?;
    if !text.starts_with("HTTP/1.1 200") {
        return Err(format!("not an answer of 200: {text}").into());
    }
    let length: usize = text
        .lines()
        .find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        })
        .ok_or("an answer without content-length")?;
    Ok(answer.len() >= head + 4 + length)
}
