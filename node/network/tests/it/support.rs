//! Services that run in this process, and waiting for what they do.

use std::time::Duration;

use dockercomp_network::{
    Backoff, Handle, Keypair, Multiaddr, Options, Role, Service, StreamProtocol, Timeouts,
    framed::{read_frame, write_frame},
};
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

/// How long a condition may take to come true on a loaded machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// The largest frame of the echo protocol.
pub(crate) const FRAME_MAX: usize = 256 * 1024;

/// A protocol that answers each frame with itself.
pub(crate) const ECHO: StreamProtocol = StreamProtocol::new("/test/echo/1");

/// What a test listens on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Over {
    Tcp,
    Quic,
}

impl Over {
    /// A loopback address whose port the system chooses.
    pub(crate) fn any_port(self) -> Multiaddr {
        let text = match self {
            Self::Tcp => "/ip4/127.0.0.1/tcp/0",
            Self::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
        };
        text.parse().expect("a valid address")
    }
}

/// Options with a new identity, short delays and a loopback address.
pub(crate) fn options(role: Role, over: Over) -> Options {
    Options {
        listen: vec![over.any_port()],
        redial: Backoff { first: Duration::from_millis(50), max: Duration::from_millis(400) },
        timeouts: Timeouts {
            dial: Duration::from_secs(5),
            open: Duration::from_secs(10),
            query: Duration::from_secs(5),
            ..Timeouts::default()
        },
        ..Options::new(Keypair::generate_ed25519(), role)
    }
}

/// A running service.
pub(crate) struct Node {
    pub(crate) handle: Handle,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Node {
    pub(crate) async fn start(options: Options) -> Self {
        let service = Service::bind(options).await.expect("loopback can be bound");
        let handle = service.handle();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(service.run(shutdown.clone()));
        Self { handle, shutdown, task }
    }

    /// A client that knows only the bootstrap node.
    pub(crate) async fn client(over: Over, bootstrap: &Node) -> Self {
        let mut options = options(Role::Client, over);
        options.bootstrap = bootstrap.handle.advertised_addresses();
        Self::start(options).await
    }

    /// Orderly end.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("the service does not panic");
    }

    /// End without a word, as if the process had been killed.
    pub(crate) async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.expect_err("was aborted").is_cancelled());
    }

    /// Answers the echo protocol until the service stops.
    pub(crate) fn echo(&self) {
        let mut incoming = self.handle.accept(ECHO).expect("accepted once");
        tokio::spawn(async move {
            while let Some((_, mut stream)) = incoming.next().await {
                tokio::spawn(async move {
                    while let Ok(frame) = read_frame(&mut stream, FRAME_MAX).await {
                        if write_frame(&mut stream, &frame, FRAME_MAX).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
    }

    pub(crate) async fn is_connected_to(&self, other: &Node) -> bool {
        let peers = self.handle.peers().await.expect("the service runs");
        peers.iter().any(|info| info.peer == other.handle.local_peer())
    }
}

/// Asks again and again until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    let mut ticks = interval(Duration::from_millis(20));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "still waiting after {DEADLINE:?}: {what}");
    }
}

/// Fails the test if a future takes too long.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("still waiting after {DEADLINE:?}: {what}"),
    }
}
