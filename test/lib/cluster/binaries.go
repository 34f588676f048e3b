package cluster

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// RunWithBinaries calls run, which runs a package's tests, with a directory of the
// built binaries, and returns the exit status for TestMain. ECLITUNNEL_BIN names
// the directory; without it they are built first, by Build.
// What has been started is ended shortly before the tests' time limit, upon which
// nothing is cleaned up.
func RunWithBinaries(run func(bin string) (code int, err error)) int {
	if limit := flag.Lookup("test.timeout"); limit != nil {
		if d, err := time.ParseDuration(limit.Value.String()); err == nil && d > 0 {
			defer time.AfterFunc(d-min(d/10, 30*time.Second), func() {
				fmt.Fprintln(os.Stderr, "the time limit is near: what the tests have started is ended")
				EndAll()
			}).Stop()
		}
	}
	code, err := func() (code int, err error) {
		if bin := os.Getenv("ECLITUNNEL_BIN"); bin != "" {
			return run(bin)
		}
		bin, err := os.MkdirTemp("", "eclitunnel-bin-")
		if err != nil {
			return 1, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(bin)) }()
		if err := Build(bin); err != nil {
			return 1, err
		}
		return run(bin)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	return code
}

// Build builds both binaries into a directory, from the module that the working
// directory is in.
func Build(dir string) error {
	//nolint:noctx // tests have a time limit of their own, and TestMain no context
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", dir,
		"github.com/eclitunnel/eclitunnel/server/eclitunneld", "github.com/eclitunnel/eclitunnel/clients/eclitunnel")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	return nil
}
