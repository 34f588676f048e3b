package tunnel

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
)

// Windows has its own numbers for what POSIX calls ECONNREFUSED and ECONNRESET,
// and package syscall's constants of those names do not match them. No other
// system uses these numbers.
const (
	wsaConnReset   = syscall.Errno(10054)
	wsaConnRefused = syscall.Errno(10061)
)

// unreachable explains a failed request in a person's words.
func unreachable(panel string, err error) *UnreachableError {
	// url.Error repeats the URL, and with it the device code of a poll.
	var ue *url.Error
	for errors.As(err, &ue) {
		err = ue.Err
	}
	reason, transient := explain(err)
	return &UnreachableError{Panel: panel, Reason: reason, Cause: err, transient: transient}
}

// explain returns the reason of a failed connection and whether trying again
// soon may help.
func explain(err error) (reason string, transient bool) {
	if reason := explainTLS(err); reason != "" {
		return reason, false
	}
	var dns *net.DNSError
	var op *net.OpError
	var timeout net.Error
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Sprintf("there is no host of the name %q", dns.Name), false
	case errors.As(err, &dns):
		return fmt.Sprintf("the name %q could not be looked up (DNS)", dns.Name), true
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return "the proxy that HTTPS_PROXY or HTTP_PROXY names does not answer", true
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, wsaConnRefused):
		return "the connection is refused; nothing listens there", true
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "it does not answer in time", true
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, wsaConnReset), errors.Is(err, syscall.EPIPE),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "it cut the connection", true
	default:
		return err.Error(), true
	}
}

func explainTLS(err error) string {
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &authority):
		return "its certificate is signed by an authority that this machine does not know"
	case errors.As(err, &hostname):
		return "its certificate is for another name"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "its certificate has expired, or this machine's clock is wrong"
	case errors.As(err, &invalid):
		return "its certificate is not valid"
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &record):
		return "it does not speak HTTPS; write the address with http:// if that is meant"
	default:
		return ""
	}
}
