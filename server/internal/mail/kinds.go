package mail

import (
	"context"
	"fmt"
	"time"
)

// passwordLink is about the panel's URL, the account's email, the link, and when it expires.
const passwordLink = `An admin of the panel %s
made a link for your account %s.
With it you set its password:

%s

It works once, until %s. Whoever opens it first sets
the password, so give it to nobody. Until then an earlier password stays valid.
If you do not know what this is about, you need not do anything.
`

// PasswordLink sends a user the link with which they set a password. Its error is an *Error.
func (s *Sender) PasswordLink(ctx context.Context, to, link string, expires time.Time) error {
	return s.send(ctx, to, "Set your password for "+s.panel.Hostname(),
		fmt.Sprintf(passwordLink, s.panel, to, link, expires.UTC().Format("2 January 2006, 15:04 UTC")))
}
