//go:build linux

// Package machine tells what processes have used of this machine, and whether
// others used it meanwhile.
package machine

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/procfs"
)

// Usage is what happened between two moments.
type Usage struct {
	Elapsed time.Duration
	// CPU is the time that the processes of the mark used.
	CPU time.Duration
	// Foreign is the share of all CPUs, 0 to 1, that went to processes that are
	// neither those, nor this one, nor their descendants, or to other virtual machines.
	Foreign float64
}

// Mark is a moment, and what had been used by then, in seconds.
type Mark struct {
	pids             []int
	at               time.Time
	used, ours, busy float64
}

// Now marks the moment for some processes. One that has ended is an error.
func Now(pids []int) (Mark, error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return Mark{}, err
	}
	total, err := fs.Stat()
	if err != nil {
		return Mark{}, err
	}
	running, err := fs.AllProcs()
	if err != nil {
		return Mark{}, err
	}
	processes := make(map[int]procfs.ProcStat, len(running))
	for _, p := range running {
		if stat, err := p.Stat(); err == nil { // Otherwise it has ended.
			processes[p.PID] = stat
		}
	}
	// Interrupts are left out: those of the bench's own packets cannot be distinguished
	// from others.
	cpu := total.CPUTotal
	m := Mark{pids: pids, at: time.Now(), busy: cpu.User + cpu.Nice + cpu.System + cpu.Steal}
	for _, pid := range pids {
		p, ok := processes[pid]
		if !ok {
			return Mark{}, fmt.Errorf("process %d has ended", pid)
		}
		m.used += p.CPUTime()
	}
	roots := append([]int{os.Getpid()}, pids...)
	for pid, p := range processes {
		ancestor := pid
		for ancestor > 1 && !slices.Contains(roots, ancestor) {
			ancestor = processes[ancestor].PPID
		}
		if ancestor > 1 {
			m.ours += p.CPUTime()
		}
	}
	return m, nil
}

// Since returns what happened since the mark.
func (m Mark) Since() (Usage, error) {
	now, err := Now(m.pids)
	if err != nil {
		return Usage{}, err
	}
	elapsed := now.at.Sub(m.at)
	// Both are counted in ticks, so the difference may be a little below zero. What a
	// descendant used that has ended meanwhile counts as foreign.
	foreign := (now.busy - m.busy) - (now.ours - m.ours)
	return Usage{
		Elapsed: elapsed,
		CPU:     time.Duration((now.used - m.used) * float64(time.Second)),
		Foreign: max(0, foreign/elapsed.Seconds()/float64(runtime.NumCPU())),
	}, nil
}

// Memory is the physical memory of processes in bytes: their own, and their
// share of what they have in common with others (PSS).
func Memory(pids []int) (int64, error) {
	var total int64
	for _, pid := range pids {
		p, err := procfs.NewProc(pid)
		if err != nil {
			return 0, err
		}
		sizes, err := p.ProcSMapsRollup()
		if err != nil {
			return 0, fmt.Errorf("memory of process %d: %w", pid, err)
		}
		total += int64(sizes.Pss)
	}
	return total, nil
}
