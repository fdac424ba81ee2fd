//! A private ceph, from Debian's packages: a monitor, one disk, and the gateway that speaks S3.
//!
//! What: a cluster of one copy in a temporary directory and on loopback ports, whose disk is memory. Its parts trust each
//! other; the gateway trusts nobody and checks every signature.
//!
//! Invariants: the gateway keeps its port, and what was put through it, through [`Ceph::kill_gateway`] and
//! [`Ceph::start_gateway`]; all processes end when it is dropped, or with the process of the tests, however that ends.
//!
//! Failure: whatever does not work panics, with what the cluster said.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::Pid;
use tempfile::TempDir;
use tokio::time::Instant;
use uuid::Uuid;

use crate::process::Handle;

/// A cluster.
#[derive(Debug)]
pub struct Ceph {
    // In the order in which they are stopped.
    gateway: Option<Daemon>,
    _disk: Daemon,
    _monitor: Daemon,
    spawner: Spawner,
    address: SocketAddr,
    directory: TempDir,
}

/// One of its processes, which ends when this is dropped.
#[derive(Debug)]
struct Daemon(Child);

/// Starts processes that end with it.
///
/// The kernel ends them with the thread that started them, so that has to be one that lasts.
#[derive(Debug)]
struct Spawner(mpsc::Sender<(Command, mpsc::Sender<Child>)>);

/// How long the gateway may take to listen.
const START_DEADLINE: Duration = Duration::from_mins(1);
/// How much of what each process said is shown.
const LOG_LINES_SHOWN: usize = 20;
/// Where ports are looked for: below those that the system gives to whoever asks for any, so that nobody gets the gateway's
/// while it is away.
const PORTS: Range<u16> = 20_000..32_000;

// === impl Ceph ===

impl Ceph {
    /// Makes a cluster with one user and starts it.
    pub fn start(key_id: &str, secret: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("outport-ceph-")
            .tempdir()
            .unwrap();
        for name in ["mon", "osd"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let (id, monitor) = (Uuid::now_v7(), address());
        let config = config(directory.path(), &id, monitor);
        fs::write(directory.path().join("ceph.conf"), config).unwrap();
        let command = |program: &str| command(directory.path(), program);
        let (monitors, disks) = (format!("[v2:{monitor}]"), "osdmap");
        run(command("monmaptool")
            .args(["--create", "--fsid", &id.to_string()])
            .args(["--addv", "a", &monitors, "monmap"]));
        run(command("osdmaptool").args(["--createsimple", "1", disks]));
        run(command("ceph-mon")
            .args(["--mkfs", "--id", "a", "--monmap", "monmap"])
            .args(["--osdmap", disks]));

        let spawner = Spawner::new();
        let start = |program: &str| {
            let mut command = daemon(directory.path(), program);
            command.args(["--id", if program == "ceph-mon" { "a" } else { "0" }]);
            spawner.spawn(command)
        };
        let monitor = start("ceph-mon");
        run(command("ceph-osd").args(["--mkfs", "--id", "0"]));
        let disk = start("ceph-osd");
        run(command("radosgw-admin")
            .args(["user", "create", "--uid=tests", "--display-name=tests"])
            .arg(format!("--access-key={key_id}"))
            .arg(format!("--secret-key={secret}")));
        let mut ceph = Self {
            gateway: None,
            _disk: disk,
            _monitor: monitor,
            spawner,
            address: address(),
            directory,
        };
        ceph.start_gateway();
        ceph
    }

    /// Returns where the gateway listens, also while it is away.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the gateway on the spot.
    pub fn kill_gateway(&mut self) {
        assert!(self.gateway.take().is_some(), "is not running");
    }

    /// Returns a way to end the gateway while it is in use elsewhere; [`Self::kill_gateway`] is still to be called.
    pub fn gateway(&self) -> Handle {
        let gateway = self.gateway.as_ref().expect("is running");
        Handle(Pid::from_child(&gateway.0))
    }

    /// Has the gateway refuse the user, or no longer.
    pub fn suspend_user(&self, is_suspended: bool) {
        let verb = if is_suspended { "suspend" } else { "enable" };
        run(command(self.directory.path(), "radosgw-admin").args(["user", verb, "--uid=tests"]));
    }

    /// Starts the gateway, and waits until it listens.
    pub fn start_gateway(&mut self) {
        assert!(self.gateway.is_none(), "is running");
        let mut command = daemon(self.directory.path(), "radosgw");
        let frontend = format!("beast endpoint={}", self.address);
        command.args(["--name", "client.admin", "--rgw-frontends", &frontend]);
        let mut gateway = self.spawner.spawn(command);
        let begin = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            let ended = gateway.0.try_wait().unwrap();
            assert!(
                ended.is_none() && begin.elapsed() < START_DEADLINE,
                "the gateway does not start: {ended:?}\n{}",
                said(self.directory.path())
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        self.gateway = Some(gateway);
    }
}

impl Drop for Ceph {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- ceph said:\n{}", said(self.directory.path()));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Nobody wants the data any more.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

// === impl Spawner ===

impl Spawner {
    fn new() -> Self {
        let (sender, commands) = mpsc::channel::<(Command, mpsc::Sender<Child>)>();
        std::thread::spawn(move || {
            for (mut command, started) in commands {
                started.send(command.spawn().unwrap()).unwrap();
            }
        });
        Self(sender)
    }

    fn spawn(&self, command: Command) -> Daemon {
        let (sender, started) = mpsc::channel();
        self.0.send((command, sender)).unwrap();
        Daemon(started.recv().expect("tests/run installs ceph"))
    }
}

/// Returns the settings of a cluster that is quick to start and to change.
///
/// The monitor has next to nothing to write, and must not end itself because others have filled the disk; what waits for it
/// does not wait for its five minutes.
fn config(directory: &Path, id: &Uuid, monitor: SocketAddr) -> String {
    let directory = directory.display();
    format!(
        "[global]
fsid = {id}
mon_host = v2:{monitor}/0
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_mon_client_mode = crc
run_dir = {directory}
admin_socket =
log_file =
log_to_stderr = true
err_to_stderr = true
mon_cluster_log_to_file = false
debug_auth = 0
debug_mon = 0
debug_monc = 0
debug_ms = 0
debug_osd = 0
debug_paxos = 0
debug_rgw = 0
debug_rocksdb = 0
mon_data = {directory}/mon
mon_allow_pool_size_one = true
mon_tick_interval = 1
mon_data_avail_crit = 0
mon_data_avail_warn = 0
client_mount_timeout = 60
mon_client_hunt_interval = 0.2
mon_client_ping_interval = 1
objecter_tick_interval = 0.2
paxos_min_wait = 0.01
paxos_propose_interval = 0.01
osd_data = {directory}/osd
osd_objectstore = memstore
memstore_device_bytes = 8589934592
osd_crush_chooseleaf_type = 0
osd_pool_default_min_size = 1
osd_pool_default_pg_autoscale_mode = off
osd_pool_default_pg_num = 4
osd_pool_default_size = 1
rgw_enable_lc_threads = false
rgw_enable_quota_threads = false
rgw_gc_obj_min_wait = 1
rgw_gc_processor_period = 1
rgw_rados_pool_pg_num_min = 4
rgw_run_sync_thread = false
"
    )
}

/// Returns the command that runs one of ceph's programs.
fn command(directory: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    configure(&mut command, directory);
    command
}

/// Returns the command that runs one of ceph's programs as a process that stays.
fn daemon(directory: &Path, program: &str) -> Command {
    let log = File::options()
        .append(true)
        .create(true)
        .open(directory.join(format!("{program}.log")))
        .unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", program, "-f"]);
    configure(&mut command, directory);
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    command
}

fn configure(command: &mut Command, directory: &Path) {
    command
        .current_dir(directory)
        .env("CEPH_CONF", directory.join("ceph.conf"));
}

fn run(command: &mut Command) {
    let output = command.output();
    let output = output.unwrap_or_else(|error| {
        panic!("{command:?}: {error}: tests/run installs the packages of ceph")
    });
    if output.status.success() {
        return;
    }
    let error = String::from_utf8_lossy(&output.stderr);
    let others = command.get_current_dir().map(said).unwrap_or_default();
    panic!("{command:?}: {error}\n{others}");
}

/// Returns what the processes said last.
fn said(directory: &Path) -> String {
    let mut said = String::new();
    for program in ["ceph-mon", "ceph-osd", "radosgw"] {
        let log = directory.join(format!("{program}.log"));
        let log = fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<_> = log.lines().filter(|line| !line.is_empty()).collect();
        for line in &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..] {
            writeln!(said, "{program}: {line}").unwrap();
        }
    }
    said
}

/// Returns a loopback address that nobody listens at, nor will by chance.
fn address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let count = u32::from(PORTS.end - PORTS.start);
    for _ in PORTS {
        // Test binaries that run at the same time begin in different places.
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let at = std::process::id().wrapping_mul(16).wrapping_add(step) % count;
        let port = PORTS.start + u16::try_from(at).unwrap();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return (Ipv4Addr::LOCALHOST, port).into();
        }
    }
    panic!("every port of {PORTS:?} is taken");
}
