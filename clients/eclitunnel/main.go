// Command eclitunnel is the EcliTunnel agent: it enrolls this machine with a
// panel, opens public ports for its local games, and carries their players.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// Set with -ldflags "-X main.version=… -X main.commit=…".
var (
	version = "dev"
	commit  = "unknown"
)

// gcPercent is the garbage at which it is collected, in percent of the memory in
// use. Go's own 100 lets idle players take a tenth more memory or so, and joins a
// fourteenth less CPU time. GOGC in the environment goes before it.
const gcPercent = 40

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	// Go ends a program that writes to a standard output which nobody reads any more:
	// players would go with whoever watched the agent.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal begins an orderly stop; from then on signals do what they do
	// by default, so that a second one ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.LookupEnv, os.Stdin, os.Stdout, os.Stderr))
}
