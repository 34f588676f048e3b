//go:build !linux

package tcpstream

import "errors"

// canSplice says that the kernel can move bytes from one socket to another.
const canSplice = false

// spliceMin has no meaning here.
const spliceMin = 0

var errNotSpliced = errors.ErrUnsupported

type splicer struct{}

func (s *stream) splice(int) (int, error) { return 0, errNotSpliced }

func (s *stream) spliceOut() (int, error) { return 0, errNotSpliced }
