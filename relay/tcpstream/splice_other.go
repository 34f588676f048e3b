//go:build !linux

package tcpstream

import "errors"

// splices reports whether the kernel can move bytes from one socket to another.
const splices = false

// spliceFrom is of no meaning here.
const spliceFrom = 0

var errUnspliced = errors.ErrUnsupported

type splicer struct{}

func (s *stream) splice() (int, error) { return 0, errUnspliced }

func (s *stream) spliceOut() (int, error) { return 0, errUnspliced }
