//go:build !windows

package local

import (
	"context"
	"net"
)

func dial(ctx context.Context, path string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", path)
}
