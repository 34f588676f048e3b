// Command demo runs EcliTunnel on this machine and plays a game through it: a
// panel with its own Postgres and tunnel server, an agent enrolled by device
// code, and a sample game behind it. It prints what went through which public
// port and stays up until Ctrl-C; with DEMO_ONCE=1 it ends after the proof.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// proofPatience bounds everything up to the proof, on a machine that may be busy.
const proofPatience = 3 * time.Minute

func main() {
	bin := flag.String("bin", "bin", "directory of eclitunneld and eclitunnel")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	once := os.Getenv("DEMO_ONCE") != ""
	if err := run(ctx, os.Stdout, *bin, once); err != nil {
		fmt.Fprintf(os.Stderr, "\nThe demo failed: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, bin string, once bool) (err error) {
	f := &fleet{out: out, bin: bin}
	defer func() {
		interrupted := ctx.Err() != nil
		if err != nil && !interrupted {
			f.printLogs(os.Stderr)
		}
		err = errors.Join(err, f.close())
		if interrupted {
			err = nil // Ctrl-C is how the demo ends
		}
	}()
	proof, cancel := context.WithTimeout(ctx, proofPatience)
	defer cancel()
	if err := f.open(proof); err != nil {
		return err
	}
	if err := f.play(proof); err != nil {
		return err
	}
	f.printWhereToLook()
	if once {
		return nil
	}
	fmt.Fprintln(out, "\nEverything stays up until Ctrl-C.")
	select {
	case <-ctx.Done():
		fmt.Fprintln(out, "\nStopping.")
		return nil
	case <-f.panel.Done():
		return fmt.Errorf("the panel ended with exit code %d", f.panel.ExitCode())
	case <-f.running.Done():
		return fmt.Errorf("the agent ended with exit code %d", f.running.ExitCode())
	}
}
