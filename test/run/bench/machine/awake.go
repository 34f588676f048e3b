//go:build linux

package machine

import (
	"context"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// StayAwake keeps every CPU busy until ctx ends, with threads that run only
// where nothing else wants to (SCHED_IDLE). A virtual machine's CPU that has
// gone idle takes tens of microseconds to come back, which would be measured as
// the tunnel's. It wants a process of its own: a Go program whose threads are
// starved cannot stop itself for its garbage collector.
func StayAwake(ctx context.Context) error {
	cpus := runtime.NumCPU()
	// One more, so that somebody can hear that ctx ended.
	runtime.GOMAXPROCS(cpus + 1)
	failed := make(chan error, cpus)
	var spinning sync.WaitGroup
	for range cpus {
		spinning.Go(func() {
			runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
			if err := beIdle(); err != nil {
				failed <- err
				return
			}
			for ctx.Err() == nil {
			}
		})
	}
	spinning.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// beIdle gives the calling thread the policy SCHED_IDLE; see sched(7).
func beIdle() error {
	const schedIdle = 5
	var priority int32 // must be 0
	_, _, errno := unix.Syscall(unix.SYS_SCHED_SETSCHEDULER, 0, schedIdle, uintptr(unsafe.Pointer(&priority)))
	if errno != 0 {
		return errno
	}
	return nil
}
