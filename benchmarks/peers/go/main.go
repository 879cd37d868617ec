// SPDX-License-Identifier: MIT

// The rows on goroutines with GOMAXPROCS(1): one processor, as the other programs have one thread.
// A task is a goroutine, a yield is Gosched, an awaited task is one that a WaitGroup waits for, and
// a cancel is a context's. A call of a child coroutine is a plain call here, and so no row; nor is
// there another thread to call from.
package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand"
	"net"
	"os"
	"runtime"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

var quick bool

func scaled(count int) int {
	if quick && count >= 10 {
		return count / 10
	}
	return count
}

func clockNs(clock uintptr) int64 {
	var now syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clock, uintptr(unsafe.Pointer(&now)), 0)
	return now.Nano()
}
func cpuNs() int64       { return clockNs(2) } // CLOCK_PROCESS_CPUTIME_ID: garbage collection included
func monotonicNs() int64 { return clockNs(1) }

func residentBytes() float64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		panic(err)
	}
	var total, resident int64
	fmt.Sscan(string(text), &total, &resident)
	return float64(resident) * float64(os.Getpagesize())
}

func report(value float64, unit string, raw ...float64) {
	if len(raw) == 0 {
		raw = []float64{value}
	}
	var list []string
	for _, each := range raw {
		list = append(list, fmt.Sprintf("%.6g", each))
	}
	fmt.Printf("{\"name\":\"%s\",\"side\":\"go\",\"compiler\":\"%s\",\"quick\":%t,\"value\":%.6g,\"unit\":\"%s\",\"raw\":[%s]}\n",
		os.Args[1], runtime.Version(), quick, value, unit, strings.Join(list, ","))
}

// sample times batches of `operations`, the first of which warms up, and reports the median.
func sample(batches, operations int, batch func()) {
	var raw []float64
	for i := 0; i <= batches; i++ {
		began := cpuNs()
		batch()
		if i > 0 {
			raw = append(raw, float64(cpuNs()-began)/float64(operations))
		}
	}
	sorted := append([]float64(nil), raw...)
	sort.Float64s(sorted)
	report(sorted[len(sorted)/2], "ns", raw...)
}

func bytesTask() {
	count := scaled(1_000_000)
	runtime.GC()
	before := residentBytes()
	for i := 0; i < count; i++ {
		go time.Sleep(10 * time.Second)
	}
	runtime.Gosched()
	runtime.Gosched()
	report((residentBytes()-before)/float64(count), "B")
	os.Exit(0)
}

func sleepersCPU() {
	count := scaled(1_000_000)
	began := cpuNs()
	var joined sync.WaitGroup
	joined.Add(count)
	for i := 0; i < count; i++ {
		go func() {
			time.Sleep(10 * time.Millisecond)
			joined.Done()
		}()
	}
	joined.Wait()
	report(float64(cpuNs()-began)*1e-3/float64(count), "s")
}

// Each goroutine sleeps until its time is up or its context is cancelled.
func cancelAsleep() {
	count := scaled(100_000)
	cancels := make([]context.CancelFunc, count)
	var joined sync.WaitGroup
	joined.Add(count)
	for i := range cancels {
		ctx, cancel := context.WithCancel(context.Background())
		cancels[i] = cancel
		go func() {
			defer joined.Done()
			timer := time.NewTimer(1000 * time.Second)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
		}()
	}
	runtime.Gosched()
	began := cpuNs()
	for _, cancel := range cancels {
		cancel()
	}
	joined.Wait()
	report(float64(cpuNs()-began)*1e-3/float64(count), "us")
}

func yields(count, times int, withSocket, withTimer bool) {
	if withSocket {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		go listener.Accept()
	}
	if withTimer {
		time.AfterFunc(time.Hour, func() {})
	}
	stop := false
	for i := 1; i < count; i++ {
		go func() {
			for !stop {
				runtime.Gosched()
			}
		}()
	}
	sample(7, count*times, func() {
		for i := 0; i < times; i++ {
			runtime.Gosched()
		}
	})
	stop = true
}

func createAwait() {
	count := scaled(500_000)
	sample(7, count, func() {
		var joined sync.WaitGroup
		for i := 0; i < count; i++ {
			joined.Add(1)
			go joined.Done()
			joined.Wait()
		}
	})
}

// A token that goes from one to the other: a sync.Mutex lets who comes take it before those who
// wait.
func handover() {
	count := scaled(1_000_000)
	sample(7, count, func() {
		token := make(chan int)
		done := make(chan struct{}, 2)
		for me := 0; me < 2; me++ {
			go func(me int) {
				for i := 0; i < count/2; i++ {
					if <-token == me {
						panic("nobody was waiting")
					}
					token <- me
				}
				done <- struct{}{}
			}(me)
		}
		token <- -1
		<-done
		<-token // from the other one
	})
}

func answer(mine, other chan struct{}, times int) {
	for i := 0; i < times; i++ {
		<-mine
		other <- struct{}{}
	}
}
func eventWake1() {
	count := scaled(1_000_000)
	sample(7, count, func() {
		ping, pong := make(chan struct{}, 1), make(chan struct{}, 1)
		var joined sync.WaitGroup
		joined.Add(1)
		go func() {
			answer(pong, ping, count/2)
			joined.Done()
		}()
		ping <- struct{}{}
		answer(ping, pong, count/2)
		joined.Wait()
	})
}

// An event for many is a channel that is closed, and replaced by another.
func eventWake10k() {
	const waiting = 10_000
	times := scaled(200)
	event := make(chan struct{})
	woken, stop := 0, false
	for i := 0; i < waiting; i++ {
		go func() {
			for !stop {
				<-event
				woken++
			}
		}()
	}
	runtime.Gosched()
	sample(7, times*waiting, func() {
		woken = 0
		for i := 1; i <= times; i++ {
			old := event
			event = make(chan struct{})
			close(old)
			for woken < i*waiting {
				runtime.Gosched()
			}
		}
	})
	stop = true
}

func queue(maxsize int) {
	count := scaled(1_000_000)
	sample(7, count, func() {
		messages := make(chan int, maxsize)
		go func() {
			for i := 0; i < count; i++ {
				messages <- 1
			}
			close(messages)
		}()
		received := 0
		for message := range messages {
			received += message
		}
		if received != count {
			panic("messages were lost")
		}
	})
}

func timeoutUnexpired() {
	count := scaled(300_000)
	sample(7, count, func() {
		for i := 0; i < count; i++ {
			_, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			runtime.Gosched()
			cancel()
		}
	})
}

func group1000() {
	const children = 1000
	count := scaled(500_000)
	sample(7, count, func() {
		for i := 0; i < count/children; i++ {
			var joined sync.WaitGroup
			joined.Add(children)
			for k := 0; k < children; k++ {
				go joined.Done()
			}
			joined.Wait()
		}
	})
}

func residentTimers(count int) []*time.Timer {
	random := rand.New(rand.NewSource(1))
	timers := make([]*time.Timer, count)
	for i := range timers {
		timers[i] = time.AfterFunc(time.Hour+time.Duration(random.Int63n(int64(time.Minute))), func() {})
	}
	return timers
}

func timerHot() { // there is no other than a relative one
	timers := residentTimers(1000)
	count := scaled(500_000)
	sample(7, count, func() {
		for i := 0; i < count; i++ {
			time.AfterFunc(2*time.Hour, func() {}).Stop()
		}
	})
	runtime.KeepAlive(timers)
}

func timer1m() {
	timers := residentTimers(scaled(1_000_000))
	sample(3, len(timers), func() {
		for _, timer := range timers {
			timer.Reset(2 * time.Hour)
		}
	})
}

// A channel of functions that one goroutine runs.
func threadsafeAwake() {
	const burst = 250
	count := scaled(500_000)
	calls := make(chan func(), burst)
	go func() {
		for call := range calls {
			call()
		}
	}()
	sample(7, count, func() {
		for i := 0; i < count/burst; i++ {
			ran := 0
			for k := 0; k < burst; k++ {
				calls <- func() { ran++ }
			}
			for ran < burst {
				runtime.Gosched()
			}
		}
	})
}

func main() {
	runtime.GOMAXPROCS(1)
	type row struct {
		name    string
		measure func()
	}
	rows := []row{
		{"bytes_task", bytesTask},
		{"sleepers_cpu", sleepersCPU},
		{"cancel_asleep", cancelAsleep},
		{"yield_1", func() { yields(1, scaled(2_000_000), false, false) }},
		{"yield_100", func() { yields(100, scaled(20_000), false, false) }},
		{"yield_100k", func() { yields(100_000, 20, false, false) }},
		{"yield_1_timer", func() { yields(1, scaled(1_000_000), false, true) }},
		{"yield_1_socket", func() { yields(1, scaled(1_000_000), true, false) }},
		{"yield_100_socket", func() { yields(100, scaled(20_000), true, false) }},
		{"yield_1_socket_timer", func() { yields(1, scaled(1_000_000), true, true) }},
		{"yield_100_socket_timer", func() { yields(100, scaled(20_000), true, true) }},
		{"create_await", createAwait},
		{"lock_handover", handover},
		{"semaphore_handover", handover},
		{"event_wake_1", eventWake1},
		{"event_wake_10k", eventWake10k},
		{"queue_1024", func() { queue(1024) }},
		{"queue_1", func() { queue(1) }},
		{"timeout_unexpired", timeoutUnexpired},
		{"wait_for_unexpired", timeoutUnexpired},
		{"task_group_1000", group1000},
		{"gather_1000", group1000},
		{"timer_hot_relative", timerHot},
		{"timer_1m", timer1m},
		{"threadsafe_awake", threadsafeAwake},
	}
	name := ""
	for _, argument := range os.Args[1:] {
		if argument == "--quick" {
			quick = true
		} else {
			name = argument
		}
	}
	switch name {
	case "--list":
		for _, each := range rows {
			fmt.Println(each.name)
		}
		return
	case "--first-callback":
		done := make(chan struct{})
		go func() {
			var now [8]byte
			binary.LittleEndian.PutUint64(now[:], uint64(monotonicNs()))
			os.Stdout.Write(now[:])
			close(done)
		}()
		<-done
		return
	}
	for _, each := range rows {
		if each.name == name {
			each.measure()
			return
		}
	}
	fmt.Fprintf(os.Stderr, "usage: %s ROW [--quick] | --list | --first-callback\n", os.Args[0])
	os.Exit(2)
}
