// SPDX-License-Identifier: MIT

//! The rows on tokio's current-thread runtime, under the names of ours.cpp. The measured code is a
//! spawned task, as tokio's manual advises: the future of `block_on` is polled in a slower way.
//!
//! A cancel is `abort`: the future is dropped where it stands, and nothing is thrown. A child
//! future is part of its parent's and is compiled into it; boxed, it would be an allocation. There
//! is no timer but one with a future, which is armed when it is first polled.

use std::future::{poll_fn, Future};
use std::hint::black_box;
use std::io::Write;
use std::os::unix::io::FromRawFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{Mutex, Notify, Semaphore};
use tokio::task::{yield_now, JoinHandle, JoinSet};
use tokio::time::{sleep, sleep_until, timeout, Instant, Sleep};

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}
extern "C" {
    fn clock_gettime(clock: i32, now: *mut Timespec) -> i32;
}
fn clock_ns(clock: i32) -> i64 {
    let mut now = Timespec {
        seconds: 0,
        nanoseconds: 0,
    };
    // SAFETY: `now` has the layout of a timespec on 64-bit Linux.
    unsafe { clock_gettime(clock, &mut now) };
    now.seconds * 1_000_000_000 + now.nanoseconds
}
fn cpu_ns() -> f64 {
    clock_ns(2) as f64
}
fn monotonic_ns() -> i64 {
    clock_ns(1)
}

fn quick() -> bool {
    std::env::args().any(|argument| argument == "--quick")
}
fn scaled(count: usize) -> usize {
    if quick() {
        (count / 10).max(1)
    } else {
        count
    }
}

fn resident_bytes() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0
}

fn report(value: f64, unit: &str, raw: &[f64]) {
    let raw: Vec<String> = raw.iter().map(|each| format!("{each:.3}")).collect();
    println!(
        "{{\"name\":\"{}\",\"side\":\"tokio\",\"compiler\":\"rustc\",\"quick\":{},\"value\":{:.6},\"unit\":\"{}\",\"raw\":[{}]}}",
        std::env::args().nth(1).unwrap(),
        quick(),
        value,
        unit,
        raw.join(",")
    );
}

/// Nanoseconds for one operation, a sample a batch; the first warms up.
struct Samples {
    left: usize,
    began: f64,
    raw: Vec<f64>,
}
impl Samples {
    fn new(batches: usize) -> Self {
        Samples {
            left: batches + 1,
            began: 0.0,
            raw: Vec::new(),
        }
    }
    fn more(&mut self) -> bool {
        let more = self.left > 0;
        self.left = self.left.saturating_sub(1);
        self.began = cpu_ns();
        more
    }
    fn stop(&mut self, operations: usize) {
        self.raw.push((cpu_ns() - self.began) / operations as f64);
    }
    fn report(mut self) {
        self.raw.remove(0);
        let mut sorted = self.raw.clone();
        sorted.sort_by(f64::total_cmp);
        report(sorted[sorted.len() / 2], "ns", &self.raw);
    }
}

// ---- Sleeping tasks

async fn bytes_task() {
    let count = scaled(1_000_000);
    let mut tasks: Vec<JoinHandle<()>> = Vec::with_capacity(count);
    let before = resident_bytes();
    for _ in 0..count {
        tasks.push(tokio::spawn(async { sleep(Duration::from_secs(10)).await }));
    }
    yield_now().await;
    yield_now().await;
    let bytes = (resident_bytes() - before) / count as f64;
    report(bytes, "B", &[bytes]);
    std::process::exit(0);
}

async fn sleepers_cpu() {
    let count = scaled(1_000_000);
    let began = cpu_ns();
    let mut tasks = Vec::with_capacity(count);
    for _ in 0..count {
        tasks.push(tokio::spawn(async {
            sleep(Duration::from_millis(10)).await
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let seconds = (cpu_ns() - began) * 1e-3 / count as f64;
    report(seconds, "s", &[seconds]);
}

// ---- Cancelling

fn deep_nap(further_frames: usize) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        if further_frames == 0 {
            sleep(Duration::from_secs(1000)).await;
        } else {
            deep_nap(further_frames - 1).await;
        }
    })
}
async fn cancel_all(count: usize, further_frames: usize) -> f64 {
    let mut tasks = Vec::with_capacity(count);
    for _ in 0..count {
        tasks.push(tokio::spawn(deep_nap(further_frames)));
    }
    yield_now().await;
    yield_now().await;
    let began = cpu_ns();
    for task in &tasks {
        task.abort();
    }
    for task in tasks {
        assert!(task.await.unwrap_err().is_cancelled());
    }
    (cpu_ns() - began) * 1e-3 / count as f64
}
async fn cancel_asleep() {
    let _ = cancel_all(scaled(100_000), 0).await;
    let microseconds = cancel_all(scaled(100_000), 0).await;
    report(microseconds, "us", &[microseconds]);
}
async fn cancel_frame() {
    let count = scaled(20_000);
    let _ = cancel_all(count, 8).await;
    let shallow = cancel_all(count, 0).await;
    let microseconds = (cancel_all(count, 8).await - shallow) / 8.0;
    report(microseconds, "us", &[microseconds]);
}

// ---- Yield

async fn yields(count: usize, times: usize, with_socket: bool, with_timer: bool) {
    if with_socket {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        tokio::spawn(async move { listener.accept().await.map(|_| ()) });
    }
    if with_timer {
        tokio::spawn(sleep(Duration::from_secs(3600)));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut others = Vec::new();
    for _ in 1..count {
        let stop = stop.clone();
        others.push(tokio::spawn(async move {
            while !stop.load(Relaxed) {
                yield_now().await;
            }
        }));
    }
    let mut samples = Samples::new(7);
    while samples.more() {
        for _ in 0..times {
            yield_now().await;
        }
        samples.stop(times * count);
    }
    stop.store(true, Relaxed);
    for other in others {
        other.await.unwrap();
    }
    samples.report();
}

// ---- Tasks and children

async fn create_await() {
    let count = scaled(500_000);
    let mut samples = Samples::new(7);
    while samples.more() {
        for _ in 0..count {
            tokio::spawn(async {}).await.unwrap();
        }
        samples.stop(count);
    }
    samples.report();
}

#[inline(never)]
async fn nothing(value: usize) -> usize {
    black_box(value)
}
async fn child_await() {
    let count = scaled(3_000_000);
    let mut samples = Samples::new(7);
    while samples.more() {
        for i in 0..count {
            black_box(nothing(i).await);
        }
        samples.stop(count);
    }
    samples.report();
}

// ---- Locks, events and queues. An event is a Notify.

/// Two tasks want it in turn; the one that measures holds it until both have come.
async fn lock_handover() {
    let count = scaled(1_000_000);
    let mut samples = Samples::new(7);
    while samples.more() {
        let lock = Arc::new(Mutex::new(usize::MAX));
        let held = lock.lock().await;
        let mut tasks = Vec::new();
        for me in 0..2 {
            let lock = lock.clone();
            tasks.push(tokio::spawn(async move {
                for _ in 0..count / 2 {
                    let mut last = lock.lock().await;
                    assert_ne!(*last, me, "nobody was waiting");
                    *last = me;
                }
            }));
        }
        yield_now().await;
        yield_now().await;
        drop(held);
        for task in tasks {
            task.await.unwrap();
        }
        samples.stop(count);
    }
    samples.report();
}
async fn semaphore_handover() {
    let count = scaled(1_000_000);
    let mut samples = Samples::new(7);
    while samples.more() {
        let semaphore = Arc::new(Semaphore::new(1));
        let last = Arc::new(AtomicUsize::new(usize::MAX));
        let held = semaphore.acquire().await.unwrap();
        let mut tasks = Vec::new();
        for me in 0..2 {
            let semaphore = semaphore.clone();
            let last = last.clone();
            tasks.push(tokio::spawn(async move {
                for _ in 0..count / 2 {
                    let _held = semaphore.acquire().await.unwrap();
                    assert_ne!(last.load(Relaxed), me, "nobody was waiting");
                    last.store(me, Relaxed);
                }
            }));
        }
        yield_now().await;
        yield_now().await;
        drop(held);
        for task in tasks {
            task.await.unwrap();
        }
        samples.stop(count);
    }
    samples.report();
}

async fn answer(mine: Arc<Notify>, other: Arc<Notify>, times: usize) {
    for _ in 0..times {
        mine.notified().await;
        other.notify_one();
    }
}
async fn event_wake_1() {
    let count = scaled(1_000_000);
    let mut samples = Samples::new(7);
    while samples.more() {
        let ping = Arc::new(Notify::new());
        let pong = Arc::new(Notify::new());
        let task = tokio::spawn(answer(pong.clone(), ping.clone(), count / 2));
        ping.notify_one();
        answer(ping, pong, count / 2).await;
        task.await.unwrap();
        samples.stop(count);
    }
    samples.report();
}
async fn event_wake_10k() {
    const WAITING: usize = 10_000;
    let times = scaled(200);
    let event = Arc::new(Notify::new());
    let woken = Arc::new(AtomicUsize::new(0));
    for _ in 0..WAITING {
        let event = event.clone();
        let woken = woken.clone();
        tokio::spawn(async move {
            loop {
                event.notified().await;
                woken.fetch_add(1, Relaxed);
            }
        });
    }
    yield_now().await;
    yield_now().await;
    let mut samples = Samples::new(7);
    while samples.more() {
        woken.store(0, Relaxed);
        for round in 1..=times {
            event.notify_waiters();
            while woken.load(Relaxed) < round * WAITING {
                yield_now().await;
            }
        }
        samples.stop(times * WAITING);
    }
    samples.report();
}

async fn queue(maxsize: usize, count: usize) {
    let mut samples = Samples::new(7);
    while samples.more() {
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<i32>(maxsize);
        let producer = tokio::spawn(async move {
            for _ in 0..count {
                sender.send(1).await.unwrap();
            }
        });
        let mut received = 0;
        while receiver.recv().await.is_some() {
            received += 1;
        }
        producer.await.unwrap();
        assert_eq!(received, count);
        samples.stop(count);
    }
    samples.report();
}

// ---- Limits and groups

async fn timeout_unexpired() {
    let count = scaled(500_000);
    let mut samples = Samples::new(7);
    while samples.more() {
        for _ in 0..count {
            timeout(Duration::from_secs(10), yield_now()).await.unwrap();
        }
        samples.stop(count);
    }
    samples.report();
}

const CHILDREN: usize = 1000;

async fn task_group_1000() {
    let count = scaled(500_000);
    let mut samples = Samples::new(7);
    while samples.more() {
        for _ in 0..count / CHILDREN {
            let mut group = JoinSet::new();
            for _ in 0..CHILDREN {
                group.spawn(async {});
            }
            while let Some(result) = group.join_next().await {
                result.unwrap();
            }
        }
        samples.stop(count);
    }
    samples.report();
}
/// `join_all` is not tokio's; this is what it does with tasks.
async fn gather_1000() {
    let count = scaled(500_000);
    let mut samples = Samples::new(7);
    while samples.more() {
        for _ in 0..count / CHILDREN {
            let tasks: Vec<_> = (0..CHILDREN).map(|_| tokio::spawn(async {})).collect();
            for task in tasks {
                task.await.unwrap();
            }
        }
        samples.stop(count);
    }
    samples.report();
}

// ---- Timers

/// Polls a timer once, which arms it.
async fn arm(mut timer: Pin<&mut Sleep>) {
    poll_fn(|context| {
        assert!(timer.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await
}
async fn resident_timers(count: usize) -> Vec<Pin<Box<Sleep>>> {
    let first = Instant::now() + Duration::from_secs(3600);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut timers = Vec::with_capacity(count);
    for _ in 0..count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let mut timer = Box::pin(sleep_until(
            first + Duration::from_nanos(state % 60_000_000_000),
        ));
        arm(timer.as_mut()).await;
        timers.push(timer);
    }
    timers
}
async fn timer_hot(relative: bool) {
    let _resident = resident_timers(1000).await;
    let mut when = Instant::now() + Duration::from_secs(7200);
    let count = scaled(300_000);
    let mut samples = Samples::new(7);
    while samples.more() {
        for _ in 0..count {
            when += Duration::from_nanos(1);
            let timer = if relative {
                sleep(Duration::from_secs(7200))
            } else {
                sleep_until(when)
            };
            tokio::pin!(timer);
            arm(timer).await;
        }
        samples.stop(count);
    }
    samples.report();
}
async fn timer_1m() {
    let mut resident = resident_timers(scaled(1_000_000)).await;
    let mut when = Instant::now() + Duration::from_secs(7200);
    let mut samples = Samples::new(3);
    while samples.more() {
        for timer in &mut resident {
            when += Duration::from_nanos(1);
            timer.as_mut().reset(when);
        }
        samples.stop(resident.len());
    }
    samples.report();
}

// ---- The door for other threads: an unbounded channel to a task

async fn threadsafe_awake() {
    const BURST: usize = 250;
    let count = scaled(500_000);
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel::<()>();
    let ran = Arc::new(AtomicUsize::new(0));
    let counted = ran.clone();
    tokio::spawn(async move {
        while receiver.recv().await.is_some() {
            counted.fetch_add(1, Relaxed);
        }
    });
    let mut samples = Samples::new(7);
    while samples.more() {
        for _ in 0..count / BURST {
            ran.store(0, Relaxed);
            for _ in 0..BURST {
                sender.send(()).unwrap();
            }
            while ran.load(Relaxed) < BURST {
                yield_now().await;
            }
        }
        samples.stop(count);
    }
    samples.report();
}
async fn threadsafe_asleep() {
    let count = scaled(3000);
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel::<()>();
    let heard = Arc::new(AtomicUsize::new(0));
    let counted = heard.clone();
    let knocker = std::thread::spawn(move || {
        let mut took = Vec::new();
        for i in 0..count {
            std::thread::sleep(Duration::from_micros(50));
            let began = monotonic_ns();
            sender.send(()).unwrap();
            took.push((monotonic_ns() - began) as f64);
            while heard.load(Relaxed) == i {
                std::thread::yield_now();
            }
        }
        took.sort_by(f64::total_cmp);
        report(took[took.len() / 2], "ns", &[]);
    });
    while receiver.recv().await.is_some() {
        counted.fetch_add(1, Relaxed);
    }
    knocker.join().unwrap();
}

// ---- Start

fn first_callback() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let now = monotonic_ns().to_ne_bytes();
        // Not by way of Stdout, which would split what it writes at a byte that looks like a new line.
        // SAFETY: nothing else uses the descriptor.
        let mut out = unsafe { std::fs::File::from_raw_fd(1) };
        out.write_all(&now).unwrap();
    });
}

type Measure = fn() -> Pin<Box<dyn Future<Output = ()> + Send>>;
const ROWS: &[(&str, Measure)] = &[
    ("bytes_task", || Box::pin(bytes_task())),
    ("sleepers_cpu", || Box::pin(sleepers_cpu())),
    ("cancel_asleep", || Box::pin(cancel_asleep())),
    ("cancel_frame", || Box::pin(cancel_frame())),
    ("yield_1", || {
        Box::pin(yields(1, scaled(500_000), false, false))
    }),
    ("yield_100", || {
        Box::pin(yields(100, scaled(20_000), false, false))
    }),
    ("yield_100k", || Box::pin(yields(100_000, 20, false, false))),
    ("yield_1_timer", || {
        Box::pin(yields(1, scaled(500_000), false, true))
    }),
    ("yield_1_socket", || {
        Box::pin(yields(1, scaled(500_000), true, false))
    }),
    ("yield_100_socket", || {
        Box::pin(yields(100, scaled(20_000), true, false))
    }),
    ("yield_1_socket_timer", || {
        Box::pin(yields(1, scaled(500_000), true, true))
    }),
    ("yield_100_socket_timer", || {
        Box::pin(yields(100, scaled(20_000), true, true))
    }),
    ("create_await", || Box::pin(create_await())),
    ("child_await", || Box::pin(child_await())),
    ("lock_handover", || Box::pin(lock_handover())),
    ("semaphore_handover", || Box::pin(semaphore_handover())),
    ("event_wake_1", || Box::pin(event_wake_1())),
    ("event_wake_10k", || Box::pin(event_wake_10k())),
    ("queue_1024", || Box::pin(queue(1024, scaled(1_000_000)))),
    ("queue_1", || Box::pin(queue(1, scaled(300_000)))),
    ("timeout_unexpired", || Box::pin(timeout_unexpired())),
    ("wait_for_unexpired", || Box::pin(timeout_unexpired())),
    ("task_group_1000", || Box::pin(task_group_1000())),
    ("gather_1000", || Box::pin(gather_1000())),
    ("timer_hot", || Box::pin(timer_hot(false))),
    ("timer_hot_relative", || Box::pin(timer_hot(true))),
    ("timer_1m", || Box::pin(timer_1m())),
    ("threadsafe_awake", || Box::pin(threadsafe_awake())),
    ("threadsafe_asleep", || Box::pin(threadsafe_asleep())),
];

fn main() {
    let name = std::env::args().nth(1).unwrap_or_default();
    if name == "--list" {
        for (name, _) in ROWS {
            println!("{name}");
        }
    } else if name == "--first-callback" {
        first_callback();
    } else if let Some((_, measure)) = ROWS.iter().find(|row| row.0 == name) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async { tokio::spawn(measure()).await.unwrap() });
    } else {
        eprintln!("usage: peer ROW [--quick] | --list | --first-callback");
        std::process::exit(2);
    }
}
