package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"strings"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"
)

// CommonDir is where Find looks: the system has one directory of pipes.
const CommonDir = `\\.\pipe\`

const pipePrefix = "eclitunnel-"

// Listen makes the pipe of a device. Only those may use it of whom the package
// documentation tells.
func Listen(_ context.Context, p Place) (net.Listener, error) {
	me, err := user.Current()
	if err != nil {
		return nil, fmt.Errorf("user of the pipe: %w", err)
	}
	access := "(A;;GA;;;SY)(A;;GA;;;BA)(A;;GA;;;" + me.Uid + ")"
	if p.Owner != "" {
		if _, err := windows.StringToSid(p.Owner); err != nil {
			return nil, fmt.Errorf("the owner of the pipe is not a SID: %q", p.Owner)
		}
		access += "(A;;GRGW;;;" + p.Owner + ")"
	}
	l, err := winio.ListenPipe(CommonDir+pipePrefix+p.Device.String(), &winio.PipeConfig{
		SecurityDescriptor: "D:P(D;;GA;;;NU)" + access, // First of all nobody from the network.
	})
	switch {
	case errors.Is(err, windows.ERROR_ACCESS_DENIED), errors.Is(err, windows.ERROR_PIPE_BUSY):
		return nil, ErrInUse
	case err != nil:
		return nil, fmt.Errorf("listen for programs of this machine: %w", err)
	}
	return l, nil
}

// Find returns the agents that listen and let this user in. It looks at all pipes, and at
// no directory. If there are none it returns ErrNotAllowed where some let this user not
// in, and otherwise nil.
func Find(ctx context.Context, _ ...string) ([]*Client, error) {
	pipes, err := os.ReadDir(CommonDir)
	if err != nil {
		return nil, nil //nolint:nilerr // There are none, as far as this user can tell.
	}
	var found []*Client
	var refused error
	for _, pipe := range pipes {
		if !strings.HasPrefix(pipe.Name(), pipePrefix) {
			continue
		}
		c, err := dial(ctx, CommonDir+pipe.Name())
		switch {
		case err == nil:
			_ = c.Close()
			found = append(found, newClient(CommonDir+pipe.Name()))
		case errors.Is(err, fs.ErrPermission):
			refused = ErrNotAllowed
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	return nil, refused
}

func dial(ctx context.Context, path string) (net.Conn, error) {
	return winio.DialPipeContext(ctx, path)
}
