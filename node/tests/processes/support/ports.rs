//! Ports that nobody else gets while a test runs.

use std::net::SocketAddr;

use tokio::net::TcpSocket;

/// A port of loopback, held by a socket that is bound but never listens: a node may bind it beside
/// (both allow the reuse of the address), and the system gives it to nobody who asks for any port.
pub struct Port {
    address: SocketAddr,
    _holder: TcpSocket,
}

impl Port {
    /// A port of the system's choice.
    pub fn any() -> Self {
        let holder = TcpSocket::new_v4().expect("no socket");
        holder.set_reuseaddr(true).expect("no reuse of addresses");
        holder
            .bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .expect("no free port");
        Self {
            address: holder.local_addr().expect("no address"),
            _holder: holder,
        }
    }

    /// The address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
