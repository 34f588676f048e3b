//go:build !linux

package forward

import (
	"errors"
	"net"
)

// splices reports whether the kernel can move bytes from one socket to another.
const splices = false

// spliceFrom is of no meaning here.
const spliceFrom = 0

func (s *stream) spliceable() int { return 0 }

func (f *frames) splice(*net.TCPConn, int) error { return errors.ErrUnsupported }

func (f *frames) spliceOut(*net.TCPConn) (int, error) { return 0, errors.ErrUnsupported }
