//go:build linux

package main

import (
	"context"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/eclitunnel/eclitunnel/test/lib/role"
)

// stayAwake keeps every CPU busy until stop is called, with threads that run only
// where nothing else is ready to (SCHED_IDLE). A virtual machine's CPU that has
// gone idle takes tens of microseconds to come back, which would be measured as
// the tunnel's. It takes a process of its own: a Go program whose threads are
// starved cannot stop itself for its garbage collector.
func stayAwake(ctx context.Context) (stop func() error, err error) {
	var ready bool
	process, err := role.Start(ctx, awakeRole, nil, &ready, false)
	if err != nil {
		return nil, err
	}
	return process.Stop, nil
}

func playAwake(ctx context.Context, _ struct{}) (ready bool, stop func() error, err error) {
	cpus := runtime.NumCPU()
	// One more, so that a thread can notice the end of ctx.
	runtime.GOMAXPROCS(cpus + 1)
	failed := make(chan error, cpus)
	var spinning sync.WaitGroup
	for range cpus {
		spinning.Go(func() {
			runtime.LockOSThread() // Never unlocked: the thread ends with the goroutine.
			if err := becomeIdle(); err != nil {
				failed <- err
				return
			}
			for ctx.Err() == nil {
			}
		})
	}
	return true, func() error {
		spinning.Wait()
		close(failed)
		return <-failed
	}, nil
}

// becomeIdle gives the calling thread the policy SCHED_IDLE; see sched(7).
func becomeIdle() error {
	const schedIdle = 5
	var priority int32 // Must be 0.
	_, _, errno := unix.Syscall(unix.SYS_SCHED_SETSCHEDULER, 0, schedIdle, uintptr(unsafe.Pointer(&priority)))
	if errno != 0 {
		return errno
	}
	return nil
}
