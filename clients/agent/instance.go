package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/store"
)

const (
	// claimTimeout is how long a claim is tried: the process before may be about to
	// end, or FindInstance may be looking.
	claimTimeout  = time.Second
	claimInterval = 50 * time.Millisecond
)

// InstanceState is what an agent does.
type InstanceState string

// The states of an agent on this machine.
const (
	InstanceRunning InstanceState = "running"
	InstanceStandby InstanceState = "standby" // Another agent of the device serves; see EventStandby.
	InstanceStopped InstanceState = "stopped"
)

// InstanceInfo describes the agent of a device on this machine.
type InstanceInfo struct {
	State InstanceState `json:"state"`
	PID   int           `json:"pid,omitempty"` // 0: not known, or not running.
}

// InstanceError is the error of ClaimInstance while another agent of the device runs on
// this machine.
type InstanceError struct {
	PID int // 0: not known.
}

func (e *InstanceError) Error() string {
	if e.PID == 0 {
		return "an agent of this device already runs on this machine"
	}
	return fmt.Sprintf("an agent of this device already runs on this machine (pid %d)", e.PID)
}

// Instance is the claim of this process to be the only agent of its device on this
// machine. It ends with the process, if not before. A nil Instance claims nothing.
type Instance struct {
	lock *store.Lock
	info InstanceInfo
}

// ClaimInstance claims to be the only agent of a device, in the first of the directories
// in which that is possible; those that are missing are made. It fails with an
// [*InstanceError] where another agent has made the claim, and tries for a second before
// that. With any other error no directory is of use, and an agent should run all the
// same: it is not noticed by others.
func ClaimInstance(ctx context.Context, dirs []string, device uuid.UUID) (*Instance, error) {
	failed := errors.New("there is no directory for a lock file")
	for i, dir := range dirs {
		lock, err := lockInstance(ctx, instanceFile(dir, device))
		switch {
		case err == nil:
			n := &Instance{lock: lock}
			_ = n.record(InstanceRunning) // The disk is full, perhaps: the lock itself holds.
			return n, nil
		case errors.Is(err, store.ErrLocked):
			note, _, _ := store.Holder(instanceFile(dir, device))
			return nil, &InstanceError{PID: parseNote(note).PID}
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case i == 0:
			failed = err
		default:
			failed = errors.Join(failed, err)
		}
	}
	return nil, failed
}

// lockInstance tries to lock a file for claimTimeout.
func lockInstance(ctx context.Context, path string) (*store.Lock, error) {
	deadline := time.Now().Add(claimTimeout)
	for {
		lock, err := store.TryLock(path)
		if !errors.Is(err, store.ErrLocked) || time.Now().After(deadline) {
			return lock, err
		}
		select {
		case <-time.After(claimInterval):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// FindInstance returns what the agent of a device does on this machine, as far as the
// directories tell in which one makes its claim. It is false where they tell nothing.
func FindInstance(dirs []string, device uuid.UUID) (InstanceInfo, bool) {
	found := InstanceInfo{State: InstanceStopped}
	known := false
	for _, dir := range dirs {
		note, held, err := store.Holder(instanceFile(dir, device))
		if held {
			return parseNote(note), true
		}
		known = known || err == nil
	}
	return found, known
}

// Watch returns a function for OnEvent that lets FindInstance know what the agent does,
// and calls on.
func (n *Instance) Watch(on func(Event)) func(Event) {
	if n == nil {
		return on
	}
	return func(e Event) {
		state := n.info.State
		switch e.Type {
		case EventStandby:
			state = InstanceStandby
		case EventConnected:
			state = InstanceRunning
		}
		if state != n.info.State {
			_ = n.record(state) // As at first.
		}
		on(e)
	}
}

// Release ends the claim.
func (n *Instance) Release() error {
	if n == nil {
		return nil
	}
	return n.lock.Unlock()
}

// record lets FindInstance know what the agent does.
func (n *Instance) record(state InstanceState) error {
	n.info = InstanceInfo{State: state, PID: os.Getpid()}
	if n.info.PID == 1 {
		n.info.PID = 0 // A container's own count, which means nothing outside.
	}
	note, err := json.Marshal(n.info)
	if err == nil {
		err = n.lock.SetNote(note)
	}
	if err != nil {
		return fmt.Errorf("note the agent's state: %w", err)
	}
	return nil
}

func instanceFile(dir string, device uuid.UUID) string {
	return filepath.Join(dir, device.String()+".lock")
}

// parseNote returns what the agent that holds a lock has noted in it.
func parseNote(note []byte) InstanceInfo {
	var info InstanceInfo
	if json.Unmarshal(note, &info) != nil || info.State == "" {
		return InstanceInfo{State: InstanceRunning} // It has just begun.
	}
	return info
}
