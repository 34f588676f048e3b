// Command eclitunneld is the EcliTunnel panel.
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

// gcPercent is the garbage collector's target percentage. Go's default of 100 makes
// idle players take about a tenth more memory, and joins about a fourteenth less CPU
// time. GOGC in the environment takes precedence.
const gcPercent = 40

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	// By default, Go ends a program that writes to a standard output that is no longer
	// read, so all players would go with the reader of the log.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // Not signal.Ignore, which child processes inherit.
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // As under nohup, where the panel outlives its terminal.
		ends = append(ends, syscall.SIGHUP)
		// A terminal that closes may send several.
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	// The first signal begins an orderly shutdown. After that, signals but SIGHUP have their
	// default effect, so that a second one ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
