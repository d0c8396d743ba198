//! The instances' network on this host's kernel. Runs in a network namespace of its own, so that the host's is never touched.
//!
//! Needs root, iproute2 and nft; says so and passes without, because a container build has none of them.
#![allow(missing_docs, clippy::print_stderr)]

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use lauf_sandbox::net::{NetError, Network, NetworkConfig, Private, lo_up};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// Runs the story in a thread inside a fresh network namespace that plays the host.
fn on_a_host(story: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() || Command::new("nft").arg("-v").output().is_err() {
        eprintln!("skipped: needs root and nft");
        return;
    }
    let thread = std::thread::spawn(move || {
        unshare();
        lauf_sandbox::net::lo_up_here().unwrap();
        story();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn unshare() {
    // SAFETY: only this thread moves, and it owns no file table of its own that others rely on.
    #[allow(unsafe_code)]
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWNET).unwrap();
    }
}

fn this_netns() -> File {
    File::open("/proc/thread-self/ns/net").unwrap()
}

/// A fresh network namespace; it lives as long as the file.
fn new_netns() -> File {
    let home = this_netns();
    unshare();
    let made = this_netns();
    enter(&home);
    made
}

fn enter(netns: &File) {
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

fn inside<T>(netns: &File, work: impl FnOnce() -> T) -> T {
    let home = this_netns();
    enter(netns);
    let result = work();
    enter(&home);
    result
}

fn config(name: &str) -> NetworkConfig {
    NetworkConfig {
        name: name.to_owned(),
        allow_host_ports: vec![8080],
        ..NetworkConfig::default()
    }
}

fn connect(to: (Ipv4Addr, u16)) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&SocketAddr::from(to), Duration::from_secs(2))
}

fn sh(script: &str) -> String {
    let out = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(
        out.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Three places behind the host, by addresses of which only the first is anybody's on the internet.
#[test]
fn private_networks_are_reached_only_when_listed() {
    on_a_host(|| {
        let world = new_netns();
        sh("ip link add out type veth peer name far && ip link set out up");
        sh(&format!(
            "ip link set far netns /proc/{}/fd/{}",
            std::process::id(),
            std::os::fd::AsRawFd::as_raw_fd(&world)
        ));
        let places = ["198.51.100.1", "10.99.0.1", "192.168.77.1"];
        inside(&world, || sh("ip link set far up && ip link set lo up"));
        for place in places {
            let near = format!("{}.2", place.strip_suffix(".1").unwrap());
            sh(&format!("ip addr add {near}/24 dev out"));
            inside(&world, || sh(&format!("ip addr add {place}/24 dev far")));
        }
        let _servers: Vec<_> = places
            .iter()
            .map(|place| inside(&world, || TcpListener::bind((*place, 80)).unwrap()))
            .collect();
        let only =
            |list: &[&str]| Private::Only(list.iter().map(|net| net.parse().unwrap()).collect());
        for (private, reached) in [
            (Private::default(), [true, false, false]),
            (only(&["10.99.0.0/24"]), [true, true, false]),
            (
                only(&["10.99.0.1/32", "192.168.0.0/16"]),
                [true, true, true],
            ),
            (Private::All, [true, true, true]),
        ] {
            let config = NetworkConfig {
                private: private.clone(),
                ..config("hkp")
            };
            let mut network = Network::set_up(&config).unwrap();
            let one = new_netns();
            let _lease = network.attach(one.as_fd()).unwrap();
            inside(&one, || {
                for (place, reached) in places.iter().zip(reached) {
                    let address: Ipv4Addr = place.parse().unwrap();
                    assert_eq!(
                        connect((address, 80)).is_ok(),
                        reached,
                        "{place} {private:?}"
                    );
                }
            });
            Network::tear_down(&config).unwrap();
        }
    });
}

#[test]
fn an_instance_reaches_the_allowed_ports_and_the_world_and_nothing_else() {
    on_a_host(|| {
        // The world: another namespace behind the host, which knows no way back to the instances but the masquerade.
        let world = new_netns();
        let address = "10.99.0.1";
        sh(
            "ip link add out type veth peer name far && ip addr add 10.99.0.2/24 dev out && ip link set out up",
        );
        sh(&format!(
            "ip link set far netns /proc/{}/fd/{}",
            std::process::id(),
            std::os::fd::AsRawFd::as_raw_fd(&world)
        ));
        inside(&world, || {
            sh(&format!(
                "ip addr add {address}/24 dev far && ip link set far up && ip link set lo up && ip addr add 169.254.169.254/32 dev far"
            ))
        });
        sh("ip route add 169.254.169.254/32 dev out");

        let mut network = Network::set_up(&NetworkConfig {
            private: Private::Only(vec!["10.99.0.0/24".parse().unwrap()]),
            ..config("hka")
        })
        .unwrap();
        assert!(network.checks_every_sender());
        let gateway = network.gateway();
        let (one, two) = (new_netns(), new_netns());
        let (a, b) = (
            network.attach(one.as_fd()).unwrap(),
            network.attach(two.as_fd()).unwrap(),
        );
        assert_ne!(a.ip, b.ip);

        let allowed = TcpListener::bind((gateway, 8080)).unwrap();
        let _dns = TcpListener::bind((gateway, 53)).unwrap();
        let _other = TcpListener::bind((gateway, 9090)).unwrap();
        let _outer = TcpListener::bind((Ipv4Addr::new(10, 99, 0, 2), 8080)).unwrap();
        let far = inside(&world, || TcpListener::bind(("10.99.0.1", 80)).unwrap());
        let _cloud = inside(&world, || {
            TcpListener::bind(("169.254.169.254", 80)).unwrap()
        });
        let _neighbour = inside(&two, || TcpListener::bind((b.ip, 80)).unwrap());

        inside(&one, || {
            connect((gateway, 8080)).expect("the platform's port");
            connect((gateway, 53)).expect("DNS");
            connect((Ipv4Addr::new(10, 99, 0, 1), 80)).expect("the world");
            for (to, what) in [
                ((gateway, 9090), "another port of the host"),
                (
                    (Ipv4Addr::new(10, 99, 0, 2), 8080),
                    "the host by its outer address",
                ),
                ((b.ip, 80), "another instance"),
                (
                    (Ipv4Addr::new(169, 254, 169, 254), 80),
                    "the cloud's metadata server",
                ),
            ] {
                let error = connect(to).expect_err(what);
                assert_ne!(
                    error.kind(),
                    io::ErrorKind::ConnectionRefused,
                    "{what} was reached"
                );
            }
        });
        let (_, from) = allowed.accept().unwrap();
        assert_eq!(from.ip(), a.ip, "the host sees the instance's own address");
        let (_, from) = far.accept().unwrap();
        assert_eq!(
            from.ip(),
            Ipv4Addr::new(10, 99, 0, 2),
            "the world sees the host"
        );

        // From outside nobody gets in, even who knows the way.
        inside(&world, || {
            sh(&format!("ip route add {} via 10.99.0.2", network.subnet()));
            connect((b.ip, 80)).expect_err("from outside");
        });
        // The host itself does.
        connect((b.ip, 80)).expect("the host reaches the instance");
        drop(network);
        Network::tear_down(&config("hka")).unwrap();
    });
}

#[test]
fn an_instance_cannot_send_from_an_address_that_is_not_its_own() {
    on_a_host(|| {
        let mut network = Network::set_up(&config("hkb")).unwrap();
        let gateway = network.gateway();
        let netns = new_netns();
        let lease = network.attach(netns.as_fd()).unwrap();
        let neighbour = Ipv4Addr::from_bits(lease.ip.to_bits() + 1);
        let host = UdpSocket::bind((gateway, 53)).unwrap();
        host.set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let mut buffer = [0; 16];
        let send = |from: Ipv4Addr, text: &str| {
            inside(&netns, || {
                UdpSocket::bind((from, 0))
                    .unwrap()
                    .send_to(text.as_bytes(), (gateway, 53))
                    .unwrap()
            });
        };
        // Even if it could give itself another one, which without CAP_NET_ADMIN it can't.
        inside(&netns, || {
            sh(&format!(
                "ip addr add {neighbour}/32 dev eth0 && ip addr add 8.8.8.8/32 dev eth0"
            ))
        });
        send(neighbour, "forged");
        send(Ipv4Addr::new(8, 8, 8, 8), "forged");
        send(lease.ip, "mine");
        let (n, from) = host.recv_from(&mut buffer).unwrap();
        assert_eq!(
            (&buffer[..n], from.ip()),
            (b"mine".as_slice(), lease.ip.into())
        );
        host.recv_from(&mut buffer)
            .expect_err("the forged ones never come");
        Network::tear_down(&config("hkb")).unwrap();
    });
}

#[test]
fn setting_up_again_adopts_and_tearing_down_leaves_nothing() {
    on_a_host(|| {
        let before = sh("ip -o link; ip route; nft list ruleset");
        let mut first = Network::set_up(&config("hkc")).unwrap();
        let kept = new_netns();
        let old = first.attach(kept.as_fd()).unwrap();
        drop(first);

        let mut second = Network::set_up(&config("hkc")).unwrap();
        let netns = new_netns();
        let new = second.attach(netns.as_fd()).unwrap();
        assert_ne!(
            old.ip, new.ip,
            "the address of an instance that still runs is not given out again"
        );
        let listener = TcpListener::bind((second.gateway(), 8080)).unwrap();
        inside(&kept, || {
            connect((old.gateway, 8080))
                .unwrap()
                .write_all(b"x")
                .unwrap()
        });
        let mut got = [0];
        listener.accept().unwrap().0.read_exact(&mut got).unwrap();

        second.release(new);
        drop((kept, netns));
        Network::tear_down(&config("hkc")).unwrap();
        Network::tear_down(&config("hkc")).unwrap();
        assert_eq!(before, sh("ip -o link; ip route; nft list ruleset"));
    });
}

#[test]
fn a_subnet_in_use_is_refused_or_avoided() {
    on_a_host(|| {
        sh(
            "ip link add taken type veth peer name taken2 && ip link set taken up && ip link set taken2 up && ip addr add 10.213.7.1/24 dev taken",
        );
        let network = Network::set_up(&config("hkd")).unwrap();
        assert_ne!(network.subnet().to_string(), "10.213.0.0/16");
        Network::tear_down(&config("hkd")).unwrap();
        let wanted = NetworkConfig {
            subnet: Some("10.213.0.0/16".parse().unwrap()),
            ..config("hkd")
        };
        let error = Network::set_up(&wanted).unwrap_err();
        assert!(matches!(error, NetError::Collision { .. }), "{error}");
        assert!(
            error.to_string().contains("taken") && error.to_string().contains("10.213.7.0/24"),
            "{error}"
        );
    });
}

#[test]
fn a_full_network_says_so_and_addresses_come_back() {
    on_a_host(|| {
        let config = NetworkConfig {
            subnet: Some("192.168.77.0/28".parse().unwrap()),
            ..config("hke")
        };
        let mut network = Network::set_up(&config).unwrap();
        let mut held: Vec<_> = (0..13)
            .map(|_| {
                let netns = new_netns();
                let lease = network.attach(netns.as_fd()).unwrap();
                (netns, lease)
            })
            .collect();
        let spare = new_netns();
        assert!(matches!(
            network.attach(spare.as_fd()),
            Err(NetError::Exhausted(13))
        ));
        let (netns, lease) = held.pop().unwrap();
        let ip = lease.ip;
        drop(netns);
        network.release(lease);
        // The kernel takes its time to remove the link with the namespace.
        let again = loop {
            match network.attach(spare.as_fd()) {
                Ok(lease) => break lease,
                Err(NetError::Exhausted(_)) => std::thread::sleep(Duration::from_millis(5)),
                Err(other) => panic!("{other}"),
            }
        };
        assert_eq!(again.ip, ip);
        Network::tear_down(&config).unwrap();
    });
}

#[test]
fn loopback_alone_can_be_raised() {
    on_a_host(|| {
        let netns = new_netns();
        inside(&netns, || {
            TcpStream::connect("127.0.0.1:1").expect_err("down").kind()
        });
        lo_up(netns.as_fd()).unwrap();
        inside(&netns, || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        });
    });
}

#[test]
fn more_instances_than_a_bridge_has_ports_reach_the_host() {
    on_a_host(|| {
        const MANY: usize = 1_100;
        let config = config("hkf");
        let mut network = Network::set_up(&config).unwrap();
        let mut held: Vec<_> = (0..MANY)
            .map(|_| {
                let netns = new_netns();
                let lease = network.attach(netns.as_fd()).unwrap();
                (netns, lease)
            })
            .collect();
        let listener = TcpListener::bind((network.gateway(), 8080)).unwrap();
        for (netns, lease) in [held.swap_remove(MANY - 1), held.swap_remove(0)] {
            inside(&netns, || connect((lease.gateway, 8080)).unwrap());
            assert_eq!(listener.accept().unwrap().1.ip(), lease.ip);
        }
        Network::tear_down(&config).unwrap();
    });
}

/// Not a test of anything but speed: `cargo test -p lauf-sandbox --test hostkit_net -- --ignored --nocapture attach_cost`.
#[test]
#[ignore = "prints a measurement"]
#[allow(clippy::disallowed_methods)]
fn attach_cost() {
    use std::time::Instant;
    on_a_host(|| {
        let config = config("hkg");
        let start = Instant::now();
        let mut network = Network::set_up(&config).unwrap();
        eprintln!("set_up {:?}", start.elapsed());
        // Made, connected and dropped in turns, as instances come and go; then many at once.
        for (what, rounds, alive) in [("in turns", 1000, 8), ("all alive", 1100, usize::MAX)] {
            let mut held = std::collections::VecDeque::new();
            let mut times = Vec::new();
            let start = Instant::now();
            for _ in 0..rounds {
                let netns = new_netns();
                let begun = Instant::now();
                let lease = network.attach(netns.as_fd()).unwrap();
                times.push(begun.elapsed());
                held.push_back((netns, lease));
                if held.len() > alive {
                    let (netns, lease) = held.pop_front().unwrap();
                    drop(netns);
                    network.release(lease);
                }
            }
            let whole = start.elapsed();
            let (last, slowest) = (times[rounds - 1], times.iter().max().copied());
            times.sort();
            let (p50, p99) = (times[rounds / 2], times[rounds * 99 / 100]);
            eprintln!(
                "attach, {what}: n={rounds} in {whole:?}, min {:?} p50 {p50:?} p99 {p99:?} max {slowest:?} last {last:?}",
                times[0]
            );
            for (_, lease) in held {
                network.release(lease);
            }
        }
        let start = Instant::now();
        Network::tear_down(&config).unwrap();
        eprintln!("tear_down of the rest {:?}", start.elapsed());
    });
}
