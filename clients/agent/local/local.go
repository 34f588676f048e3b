// Package local connects a running agent with its user's other programs on the same
// machine, over a socket that nobody else may use: a Unix socket, on Windows a named pipe.
//
// The agent [Listen]s and [Serve]s. It speaks HTTP:
//
//	GET /v1/agent      an Info
//	GET /v1/snapshot   an agent.Snapshot
//	GET /v1/watch      an agent.Snapshot in each line, as agent.Agent.Watch shows them
//	    /panel/…       the panel's API, as far as it concerns the device and its ports,
//	                   with the device's token, which no answer contains
//
// The other programs [Find] agents.
//
// # Who gets in
//
// On Unix the socket has the mode 0600 in a directory of its own with the mode 0700. Both
// belong to the user as whom the agent runs or, where that is root, to the person who
// enrolled the device with sudo. With a group they have the modes 0660 and 0750, and the
// members of the group get in too. Root gets in everywhere.
//
// On Windows the pipe is for the user as whom the agent runs, the user who enrolled the
// device, SYSTEM and administrators, and not for other machines.
package local

import (
	"errors"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

const (
	agentPath, snapshotPath, watchPath = "/v1/agent", "/v1/snapshot", "/v1/watch"
	panelPrefix                        = "/panel"
	// failureHeader of an answer says why the panel gave none.
	failureHeader = "Eclitunnel-Unreachable"
)

// ErrInUse is returned by Listen where another agent listens already.
var ErrInUse = errors.New("another agent listens there")

// ErrNotAllowed is returned by Find where agents run and let none of this user's programs in.
var ErrNotAllowed = errors.New("an agent runs on this machine for another user")

// Info says whose agent it is.
type Info struct {
	Device  uuid.UUID        `json:"device"`
	Name    string           `json:"name"` // May be "".
	Kind    types.DeviceKind `json:"kind"`
	Panel   string           `json:"panel"` // Its address.
	Version string           `json:"version"`
	PID     int              `json:"pid"` // 0: not known outside of its container.
	// Allow and AllowPorts are the arguments of agent.ParseAllowList.
	Allow      []string `json:"allow"`
	AllowPorts []string `json:"allowPorts"`
}

// Place is where an agent listens.
type Place struct {
	// Dir is the directory for the sockets of all devices. On Windows it has no effect.
	Dir    string
	Device uuid.UUID
	// Owner is the user who gets in besides the one as whom the agent runs: a uid, on
	// Windows a SID. It has no effect where the agent does not run as root, or as a service
	// of Windows. "": nobody.
	Owner string
	// Group is the name of a group whose members get in. On Windows it has no effect. "":
	// none.
	Group string
}
