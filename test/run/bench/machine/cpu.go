//go:build linux

// Package machine reads from Linux what a sample cost, and whether anybody else
// was using the machine meanwhile; keeps its CPUs awake; and makes the slow
// link on which lag is measured.
package machine

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// userHz is the unit of the kernel's CPU times, the same on every architecture
// that Go runs on.
const userHz = 100

// Usage is what happened between two moments.
type Usage struct {
	Elapsed time.Duration
	// CPU is what the tunnel's processes used.
	CPU time.Duration
	// Foreign is the share of all CPUs, 0 to 1, that went to processes that have
	// no part in the bench, or to other virtual machines.
	Foreign float64
}

// Meter measures the CPU time of a tunnel.
type Meter struct{ pids []int }

// NewMeter returns a meter of a tunnel's processes.
func NewMeter(pids []int) *Meter { return &Meter{pids: pids} }

// Mark is a moment.
type Mark struct {
	at     time.Time
	tunnel time.Duration
	// ours is used by everybody who has a part in the sample, busy by anybody.
	ours, busy time.Duration
}

// Mark notes the moment.
func (m *Meter) Mark() (Mark, error) {
	busy, err := busyTime()
	if err != nil {
		return Mark{}, err
	}
	processes, err := readProcesses()
	if err != nil {
		return Mark{}, err
	}
	mark := Mark{at: time.Now(), busy: busy}
	for _, pid := range m.pids {
		p, ok := processes[pid]
		if !ok {
			return Mark{}, fmt.Errorf("process %d of the tunnel is gone", pid)
		}
		mark.tunnel += p.cpu
	}
	roots := append([]int{os.Getpid()}, m.pids...)
	for pid, p := range processes {
		if descends(processes, pid, roots) {
			mark.ours += p.cpu
		}
	}
	return mark, nil
}

// Since returns what happened since a mark.
func (m *Meter) Since(then Mark) (Usage, error) {
	now, err := m.Mark()
	if err != nil {
		return Usage{}, err
	}
	elapsed := now.at.Sub(then.at)
	foreign := (now.busy - then.busy) - (now.ours - then.ours)
	capacity := elapsed * time.Duration(runtime.NumCPU())
	return Usage{
		Elapsed: elapsed,
		CPU:     now.tunnel - then.tunnel,
		// Both are counted in ticks, so it may be a little below zero where nobody
		// else ran. What one of ours used that has ended meanwhile counts as foreign.
		Foreign: max(0, foreign.Seconds()/capacity.Seconds()),
	}, nil
}

// busyTime is how long all CPUs together have run processes, or wanted to while
// the host ran something else. Interrupts are left out: those of the bench's
// own packets cannot be told from others.
func busyTime() (time.Duration, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	// cpu user nice system idle iowait irq softirq steal ...
	fields := strings.Fields(string(line))
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var total time.Duration
	for _, i := range []int{1, 2, 3, 8} {
		d, err := ticks(fields[i])
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		total += d
	}
	return total, nil
}

func ticks(field string) (time.Duration, error) {
	n, err := strconv.ParseInt(field, 10, 64)
	return time.Duration(n) * (time.Second / userHz), err
}

type process struct {
	parent int
	cpu    time.Duration
}

func readProcesses() (map[int]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	processes := make(map[int]process, len(entries))
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		data, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		if p, ok := parseProcess(data); ok {
			processes[pid] = p
		}
	}
	return processes, nil
}

// parseProcess reads a line of /proc/<pid>/stat. The name in its second field
// may hold anything, so what counts begins behind the last parenthesis.
func parseProcess(stat []byte) (process, bool) {
	// state ppid ... utime (12th from here) stime
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return process{}, false
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return process{}, false
	}
	user, err := ticks(fields[11])
	if err != nil {
		return process{}, false
	}
	system, err := ticks(fields[12])
	return process{parent: parent, cpu: user + system}, err == nil
}

// descends reports whether a process is one of roots or was started, directly
// or not, by one.
func descends(processes map[int]process, pid int, roots []int) bool {
	for pid > 1 {
		for _, root := range roots {
			if pid == root {
				return true
			}
		}
		pid = processes[pid].parent
	}
	return false
}
