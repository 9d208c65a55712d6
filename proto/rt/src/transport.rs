//! How bytes get from one process to another: connect, listen, accept, and nothing about what
//! they mean.
//!
//! Every socket of the system goes through [`Transport`], so a simulation can put its own network
//! below unchanged servers. Addresses are `host:port` strings; only a transport looks inside.

use std::io;
use std::net::{IpAddr, SocketAddr};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

mod pipe;
#[cfg(any(test, feature = "sim"))]
mod sim;

pub use pipe::PipeTransport;
#[cfg(any(test, feature = "sim"))]
pub use sim::SimTransport;

/// How many connections may wait in the kernel to be accepted. The kernel drops the first packet of whoever finds no room,
/// and that is sent again a second later, or more: so there is room for those who come within the fraction of a second that a
/// host may be busy with others when thousands come back at once. For more there is none: who waits here has said nothing
/// yet and is not waited for, and a host that lets in some 200 a second when it shares its machine would find those at
/// the end of a longer queue gone.
const BACKLOG: u32 = 256;

/// A byte stream in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// One open connection.
pub type Io = Box<dyn Stream>;

/// Opens and accepts connections.
pub trait Transport: Send + Sync {
    /// Connects to `address`. Has no deadline of its own: the caller sets one.
    ///
    /// # Errors
    /// If nobody answers there; the message names the address.
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Io>>;

    /// Starts to listen at `address`; port 0 takes any free one.
    ///
    /// # Errors
    /// If the address is taken or not ours; the message names it.
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;

    /// The addresses that this one stands for: more than one if its host is a name of several.
    ///
    /// # Errors
    /// If the name cannot be looked up; the message names it.
    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<String>>> {
        Box::pin(async move { Ok(vec![address.to_owned()]) })
    }
}

/// Takes in connections until dropped.
pub trait Listener: Send {
    /// Where it listens, with the real port.
    fn local_address(&self) -> String;

    /// The next connection and its peer's address. Cancel-safe: a dropped call loses none.
    ///
    /// # Errors
    /// Passing ones such as too many open files: wait a little and call again.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Io, String)>>;
}

/// The network of production.
#[derive(Clone, Debug, Default)]
pub struct TcpTransport {
    source: Option<IpAddr>,
}

impl TcpTransport {
    /// Connects from whatever address the kernel picks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Connects from `source`, an address of this machine: one has about 28,000 ports towards one listener, and the kernel
    /// looks longer for a free one the more of them are taken, so a load generator with more connections uses several.
    ///
    /// Connections from there to different listeners may share a port, as without a source; where the system cannot do that
    /// (it is not Linux), there are as many connections from `source` as it has ports. Connecting fails if the host cannot be
    /// reached from there, or has an address of the other version of IP.
    pub fn from_source(source: IpAddr) -> Self {
        Self { source: Some(source) }
    }
}

impl Transport for TcpTransport {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Io>> {
        Box::pin(async move {
            tcp::connect(address, self.source).await.map_err(|error| at("connect to", address, error))
        })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move { tcp::listen(address).await.map_err(|error| at("listen on", address, error)) })
    }

    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<String>>> {
        Box::pin(async move { tcp::resolve(address).await.map_err(|error| at("look up", address, error)) })
    }
}

/// The hosts that an address stands for, by what was found for it.
fn hosts_of(address: &str, mut found: Vec<SocketAddr>) -> Vec<String> {
    found.sort_unstable();
    found.dedup();
    let of_four = found.iter().filter(|peer| peer.is_ipv4()).count();
    // A name of one host, which may have an address of each kind, stays a name: it may stand for another when it is
    // connected to.
    if of_four.max(found.len() - of_four) <= 1 {
        return vec![address.to_owned()];
    }
    found.iter().map(SocketAddr::to_string).collect()
}

/// Says in the error itself what was tried where: it is often all that an operator sees.
fn at(verb: &str, address: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{verb} {address}: {error}"))
}

/// Tokio's sockets, which no other module may touch.
#[allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "this module is the network")]
mod tcp {
    use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

    use super::{BACKLOG, BoxFuture, Io, IpAddr, Listener, SocketAddr, io};

    pub(super) async fn connect(address: &str, source: Option<IpAddr>) -> io::Result<Io> {
        let mut last = nobody();
        for peer in lookup_host(address).await? {
            match connect_one(peer, source).await {
                Ok(stream) => return Ok(Box::new(stream)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    pub(super) async fn resolve(address: &str) -> io::Result<Vec<String>> {
        Ok(super::hosts_of(address, lookup_host(address).await?.collect()))
    }

    async fn connect_one(peer: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
        let socket = match source {
            Some(source) => socket_from(source, peer)?,
            None => socket_for(peer)?,
        };
        let stream = socket.connect(peer).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// One that is to be connected to `peer`.
    pub(super) fn socket_from(source: IpAddr, peer: SocketAddr) -> io::Result<TcpSocket> {
        let socket = socket_for(peer)?;
        choose_port_later(&socket)?;
        socket.bind(SocketAddr::new(source, 0))?;
        Ok(socket)
    }

    /// Lets a bind to port 0 take none: connecting does, when it is known which ports are free towards that peer.
    #[cfg(target_os = "linux")]
    fn choose_port_later(socket: &TcpSocket) -> io::Result<()> {
        use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
        Ok(setsockopt(socket, IpBindAddressNoPort, &true)?)
    }

    #[cfg(not(target_os = "linux"))]
    fn choose_port_later(_: &TcpSocket) -> io::Result<()> {
        Ok(())
    }

    pub(super) async fn listen(address: &str) -> io::Result<Box<dyn Listener>> {
        let mut last = nobody();
        for local in lookup_host(address).await? {
            match listen_one(local) {
                Ok(listener) => return Ok(Box::new(listener)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn listen_one(local: SocketAddr) -> io::Result<Accepting> {
        let socket = socket_for(local)?;
        // A restarted server takes its port back while old connections still linger.
        socket.set_reuseaddr(true)?;
        socket.bind(local)?;
        let listener = socket.listen(BACKLOG)?;
        let local = listener.local_addr()?;
        Ok(Accepting { listener, local })
    }

    fn socket_for(address: SocketAddr) -> io::Result<TcpSocket> {
        if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
    }

    fn nobody() -> io::Error {
        io::Error::new(io::ErrorKind::NotFound, "the name has no address")
    }

    struct Accepting {
        listener: TcpListener,
        local: SocketAddr,
    }

    impl Listener for Accepting {
        fn local_address(&self) -> String {
            self.local.to_string()
        }

        fn accept(&mut self) -> BoxFuture<'_, io::Result<(Io, String)>> {
            Box::pin(async move {
                let (stream, peer) = self.listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Box::new(stream) as Io, peer.to_string()))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_go_both_ways_over_tcp() {
        let transport = TcpTransport::new();
        let mut listener = transport.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address();

        let (near, far) = tokio::join!(transport.connect(&address), listener.accept());
        let (mut near, (mut far, _)) = (near.unwrap(), far.unwrap());
        near.write_all(b"up").await.unwrap();
        far.write_all(b"down").await.unwrap();

        let mut up = [0; 2];
        let mut down = [0; 4];
        far.read_exact(&mut up).await.unwrap();
        near.read_exact(&mut down).await.unwrap();
        assert_eq!((&up, &down), (b"up", b"down"));
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error_that_names_the_address() {
        let transport = TcpTransport::new();
        let listener = transport.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address();

        let error = transport.listen(&address).await.err().unwrap();

        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&address), "{error}");
    }

    #[tokio::test]
    async fn connecting_to_nobody_is_an_error_that_names_the_address() {
        let transport = TcpTransport::new();
        let listener = transport.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address();
        drop(listener);

        let error = transport.connect(&address).await.err().unwrap();

        assert!(error.to_string().contains(&address), "{error}");
    }

    #[test]
    fn a_name_of_several_hosts_is_their_addresses_and_that_of_one_stays_a_name() {
        let check = |found: &[&str], hosts: &[&str]| {
            let found = found.iter().map(|peer| peer.parse().unwrap()).collect();
            assert_eq!(hosts_of("proxies:7001", found), hosts);
        };
        check(&[], &["proxies:7001"]);
        check(&["10.0.0.1:7001"], &["proxies:7001"]);
        check(&["10.0.0.1:7001", "10.0.0.1:7001"], &["proxies:7001"]);
        check(&["[fd00::1]:7001", "10.0.0.1:7001"], &["proxies:7001"]);
        check(&["10.0.0.2:7001", "10.0.0.1:7001"], &["10.0.0.1:7001", "10.0.0.2:7001"]);
        check(
            &["[fd00::2]:7001", "[fd00::1]:7001", "10.0.0.1:7001"],
            &["10.0.0.1:7001", "[fd00::1]:7001", "[fd00::2]:7001"],
        );
    }

    #[tokio::test]
    async fn an_address_stands_for_itself_and_what_cannot_be_looked_up_is_an_error_that_names_it() {
        let transport = TcpTransport::new();
        assert_eq!(transport.resolve("127.0.0.1:7001").await.unwrap(), ["127.0.0.1:7001"]);

        let error = transport.resolve("proxies:none").await.err().unwrap();

        assert!(error.to_string().starts_with("look up proxies:none: "), "{error}");
    }

    #[tokio::test]
    async fn connections_come_from_the_given_source() {
        let source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 7));
        let transport = TcpTransport::from_source(source);
        let mut listener = transport.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address();

        let (near, far) = tokio::join!(transport.connect(&address), listener.accept());

        near.unwrap();
        assert!(far.unwrap().1.starts_with("127.0.0.7:"));
    }

    #[tokio::test]
    async fn a_source_that_is_not_ours_is_an_error_that_names_the_peer() {
        // Set aside for documentation: no machine has it.
        let transport = TcpTransport::from_source(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
        let listener = transport.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address();

        let error = transport.connect(&address).await.err().unwrap();

        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
        assert!(error.to_string().starts_with(&format!("connect to {address}: ")), "{error}");
    }

    /// So one that is taken towards another peer will do.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_source_has_no_port_before_it_is_connected() {
        let peer = "127.0.0.1:9".parse().unwrap();

        let socket = tcp::socket_from(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 8)), peer).unwrap();

        assert_eq!(socket.local_addr().unwrap(), "127.0.0.8:0".parse().unwrap());
    }
}
