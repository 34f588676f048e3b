// Command eclitunnel is the EcliTunnel agent. It enrolls a machine with a panel, opens
// public ports for its local game servers, and relays their players' traffic. On a
// device of kind server it runs a tunnel server. Run eclitunnel --help for its commands,
// settings and exit codes.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// Set with -ldflags "-X main.version=… -X main.commit=… -X main.releaseKey=…".
var (
	version = "dev"
	commit  = "unknown"
	// releaseKey checks the signatures of releases: an Ed25519 public key in base64, "" in
	// a build that can check none.
	releaseKey = ""
)

// gcPercent is the default of GOGC for this program. Go's default of 100 uses about a
// tenth more memory for idle players, and a fourteenth less CPU time for joins.
const gcPercent = 40

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	// By default, SIGPIPE ends a Go program that writes to a closed standard output.
	// The agent must outlive the program that reads its output.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // As under nohup, where the agent outlives its terminal.
		ends = append(ends, syscall.SIGHUP)
		// A terminal that closes may send several.
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	// The first signal starts an orderly stop. It also restores the default handling of
	// signals but SIGHUP, so that a second one ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.LookupEnv, os.Stdin, os.Stdout, os.Stderr))
}
