package udptunnel

import "time"

// started is when Ticks counts from.
var started = time.Now()

// Ticks returns a time as nanoseconds since this process started. Unlike
// t.UnixNano it follows the monotonic clock: setting the system's clock makes no
// flow look idle, or in use.
func Ticks(t time.Time) int64 { return int64(t.Sub(started)) }
