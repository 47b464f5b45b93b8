package blob

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	azaccount "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	azblob "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	azcontainer "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	azlease "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/lease"
	azservice "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/service"

	"github.com/fluent-bit-defender/fluent-bit-defender/input/web"
)

const (
	listTimeout = time.Minute
	readTimeout = 2 * time.Minute // of one piece; the bytes that have come until then are kept
	smallPage   = 500             // names asked for when a page of 5,000 is larger than listMost
)

// account is the storage account: the requests that the source makes of it, without any retry, for
// those are the source's.
type account struct {
	service   *azservice.Client
	transport *http.Transport
	host      string
	name      string // of the account, as far as its address tells
	sas       bool
	entra     bool
	sasExpiry time.Time     // zero when unknown
	listing   chan struct{} // at most as many pages are held decoded at a time as fit in
	skew      atomic.Int64  // how far the service's clock is ahead of ours, ns
	date      atomic.Int64  // of the last answer, whatever it said; seconds, 0 for none
	lists     atomic.Int64

	pace       pace        // of lists
	smallPages atomic.Bool // a page of full size was larger than listMost
	reads      atomic.Int64
}

func openAccount(cfg Config) (*account, error) {
	client := cfg.SignIn.HTTP
	if client == nil {
		var err error
		if client, err = web.NewClient(cfg.SignIn.CAFile); err != nil {
			return nil, fmt.Errorf("open blob source: azure.ca_file %w", err)
		}
	}
	transport := client.Transport.(*http.Transport).Clone()
	// net/http does not know the header by which we ask for ranges. It would unpack blobs that are
	// stored with Content-Encoding gzip, and offsets would mean nothing.
	transport.DisableCompression = true
	transport.MaxIdleConnsPerHost = cfg.Workers + 4
	transport.ReadBufferSize = 64 << 10

	a := &account{transport: transport, listing: make(chan struct{}, 2)}
	options := &azaccount.ClientOptions{ClientOptions: azcore.ClientOptions{
		Transport: newGuard(transport),
		Retry:     policy.RetryOptions{MaxRetries: -1},
		Telemetry: policy.TelemetryOptions{ApplicationID: cmp.Or(cfg.agent, "fluent-bit-defender")},
	}}
	var (
		c     *azaccount.Client
		err   error
		token string // a SAS
	)
	switch cfg.Auth {
	case byConnectionString:
		text := cfg.ConnectionString.Reveal()
		parts, e := parseConnectionString(text)
		if e != nil {
			return nil, fmt.Errorf("open blob source: blob.connection_string %w", e)
		}
		if parts["AccountKey"] == "" {
			token = parts["SharedAccessSignature"]
		}
		c, err = azaccount.NewClientFromConnectionString(text, options)
	case bySAS:
		token = cfg.SAS.Reveal()
		c, err = azaccount.NewClientWithNoCredential(strings.TrimSuffix(cfg.AccountURL, "/")+"/?"+token, options)
	default:
		a.entra = true
		cred, e := cfg.SignIn.Credential(cfg.Auth)
		if e != nil {
			return nil, fmt.Errorf("open blob source: %w", e)
		}
		options.InsecureAllowCredentialWithHTTP = strings.HasPrefix(cfg.AccountURL, "http://") // settings allow that on loopback only
		c, err = azaccount.NewClient(strings.TrimSuffix(cfg.AccountURL, "/")+"/", cred, options)
	}
	if err != nil {
		// The SDK's own text may quote the URL with its signature.
		return nil, fmt.Errorf("open blob source: the SDK does not accept the endpoint or the key; check blob.connection_string or blob.account_url and blob.sas_token")
	}
	a.service = c.ServiceClient()
	if u, err := url.Parse(a.service.URL()); err == nil {
		a.host, a.name = u.Host, accountName(u)
	}
	if token != "" {
		a.sas = true
		if q, err := url.ParseQuery(token); err == nil {
			for _, layout := range []string{time.RFC3339, "2006-01-02T15:04Z", "2006-01-02"} {
				if a.sasExpiry, err = time.Parse(layout, q.Get("se")); err == nil {
					break
				}
			}
		}
	}
	return a, nil
}

// accountName is the account of an address: the same for each of its endpoints, such as private
// ones.
func accountName(u *url.URL) string {
	host := u.Hostname()
	if net.ParseIP(host) != nil || host == "localhost" { // an emulator
		name, _, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
		return name
	}
	name, _, _ := strings.Cut(host, ".")
	return strings.ToLower(name)
}

func (a *account) close() { a.transport.CloseIdleConnections() }

// now is the time by the service's clock. The service stamps blobs and names folders by it. Ours
// may be wrong.
func (a *account) now() time.Time { return time.Now().Add(time.Duration(a.skew.Load())).UTC() }

// surely is a time that is over by this machine's clock and by the last answer's Date. What is
// older than something counts as read for good goes by it: one of both clocks may be days ahead.
func (a *account) surely() time.Time {
	now := time.Now().UTC()
	if date := a.date.Load(); date != 0 && date < now.Unix() {
		return time.Unix(date, 0).UTC()
	}
	return now
}

// mostSkew is how far the service's clock may be ahead of ours, or behind. A proxy whose clock is
// wrong answers with any Date. One answer of the year 2100 would have all blobs count as read long
// ago, and the state file would keep that.
const mostSkew = 14 * 24 * time.Hour

func (a *account) sawDate(at *time.Time) {
	if at == nil || at.IsZero() {
		return
	}
	a.date.Store(at.Unix())
	// Dates have whole seconds and are late by the way here: nothing below two seconds is a
	// difference. A Date is ignored if it is off by so much that this machine would not accept the
	// service's certificate.
	if d := time.Until(*at); d.Abs() > 2*time.Second && d.Abs() < mostSkew {
		a.skew.Store(int64(d))
	} else {
		a.skew.Store(0)
	}
}

func (a *account) sawError(err error) {
	var answer *azcore.ResponseError
	if errors.As(err, &answer) && answer.RawResponse != nil {
		if at, err := http.ParseTime(answer.RawResponse.Header.Get("Date")); err == nil {
			a.sawDate(&at)
		}
	}
}

// item is a blob as listed.
type item struct {
	name     string
	size     int64
	etag     string
	created  int64 // seconds
	modified int64
	append   bool
	archived bool
}

// list asks for one page: blobs and, with a delimiter, folders. next is "" when it is the last
// page; a page without any item may still have a next.
func (a *account) list(ctx context.Context, containerName, prefix, delimiter, marker string) (items []item, folders []string, next string, err error) {
	select {
	case a.listing <- struct{}{}:
		defer func() { <-a.listing }()
	case <-ctx.Done():
		return nil, nil, "", ctx.Err()
	}
	if err := a.pace.wait(ctx); err != nil {
		return nil, nil, "", err
	}
	var page listed
	page, err = a.page(ctx, containerName, prefix, delimiter, marker)
	if long := new(web.LengthError); errors.As(err, &long) && !a.smallPages.Swap(true) {
		page, err = a.page(ctx, containerName, prefix, delimiter, marker)
	}
	if err != nil {
		a.sawError(err)
		return nil, nil, "", err
	}
	a.sawDate(page.date)
	for _, f := range page.folders {
		if f.Name != nil {
			folders = append(folders, *f.Name)
		}
	}
	blobs := page.blobs
	items = make([]item, 0, len(blobs))
	for _, b := range blobs {
		if b.Name == nil || b.Properties == nil || b.Properties.ContentLength == nil {
			continue
		}
		q := b.Properties
		it := item{name: *b.Name, size: *q.ContentLength, etag: quoted(q.ETag)}
		if q.CreationTime != nil {
			it.created = q.CreationTime.Unix()
		}
		if q.LastModified != nil {
			it.modified = q.LastModified.Unix()
		}
		it.append = q.BlobType != nil && *q.BlobType == azcontainer.BlobTypeAppendBlob
		it.archived = q.AccessTier != nil && *q.AccessTier == azcontainer.AccessTierArchive
		items = append(items, it)
	}
	return items, folders, page.next, nil
}

// listed is a page of a listing, flat or with folders.
type listed struct {
	blobs   []*azcontainer.BlobItem
	folders []*azcontainer.BlobPrefix
	next    string
	date    *time.Time
}

// page makes the request of list. An empty string asks for nothing in particular.
func (a *account) page(ctx context.Context, containerName, prefix, delimiter, marker string) (p listed, err error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	a.lists.Add(1)
	var most *int32
	if a.smallPages.Load() {
		n := int32(smallPage)
		most = &n
	}
	optional := func(text string) *string {
		if text == "" {
			return nil
		}
		return &text
	}
	c := a.service.NewContainerClient(containerName)
	var next *string
	if delimiter == "" {
		page, err := c.NewListBlobsFlatPager(&azcontainer.ListBlobsFlatOptions{Prefix: optional(prefix), Marker: optional(marker), MaxResults: most}).NextPage(ctx)
		if err != nil {
			return listed{}, err
		}
		p.date, next = page.Date, page.NextMarker
		if page.Segment != nil {
			p.blobs = page.Segment.BlobItems
		}
	} else {
		page, err := c.NewListBlobsHierarchyPager(delimiter, &azcontainer.ListBlobsHierarchyOptions{Prefix: optional(prefix), Marker: optional(marker), MaxResults: most}).NextPage(ctx)
		if err != nil {
			return listed{}, err
		}
		p.date, next = page.Date, page.NextMarker
		if page.Segment != nil {
			p.blobs, p.folders = page.Segment.BlobItems, page.Segment.BlobPrefixes
		}
	}
	if next != nil {
		p.next = *next
	}
	if p.next != "" && p.next == marker {
		return listed{}, errCircle
	}
	return p, nil
}

// quoted makes the ETag of a listing, which is bare, equal to that of a header.
func quoted(etag *azcore.ETag) string {
	if etag == nil || *etag == "" {
		return ""
	}
	return `"` + strings.Trim(string(*etag), `"`) + `"`
}

// listContainers calls f with the name of every container that begins with prefix.
func (a *account) listContainers(ctx context.Context, prefix string, f func(name string)) error {
	pager := a.service.NewListContainersPager(&azservice.ListContainersOptions{Prefix: &prefix})
	var seen markers
	for pager.More() {
		if err := a.pace.wait(ctx); err != nil {
			return err
		}
		a.lists.Add(1)
		page, err := func() (azservice.ListContainersResponse, error) {
			ctx, cancel := context.WithTimeout(ctx, listTimeout)
			defer cancel()
			return pager.NextPage(ctx)
		}()
		if err == nil && page.NextMarker != nil {
			err = seen.take(*page.NextMarker, len(page.ContainerItems))
		}
		if err != nil {
			a.sawError(err)
			return err
		}
		for _, c := range page.ContainerItems {
			if c.Name != nil {
				f(*c.Name)
			}
		}
	}
	return nil
}

// match returns the containers that a pattern of path.Match names.
func (a *account) match(ctx context.Context, pattern string) (names []string, err error) {
	err = a.listContainers(ctx, pattern[:strings.IndexAny(pattern, "*?[")], func(name string) {
		if ok, _ := path.Match(pattern, name); ok && len(names) < 2*maxContainers {
			names = append(names, name)
		}
	})
	return names, err
}

// others returns some containers of the account, for somebody whose pattern matches none.
func (a *account) others(ctx context.Context) (names []string, err error) {
	err = a.listContainers(ctx, "", func(name string) {
		if len(names) < 5 {
			names = append(names, name)
		}
	})
	return names, err
}

// beside returns a blob of events that lies in the container but not under the prefix, or "".
func (a *account) beside(ctx context.Context, containerName, prefix string) (name string, err error) {
	items, _, _, err := a.list(ctx, containerName, "", "", "")
	if err != nil {
		return "", err
	}
	for _, it := range items {
		if isEvents(it.name) && !strings.HasPrefix(it.name, prefix) {
			return it.name, nil
		}
	}
	return "", nil
}

// errOther is the answer of a blob that is not the one that was asked for.
var errOther = errors.New("blob has another creation time")

// read fills p from offset on and returns how much of it came; less than all of p comes with an
// error. etag is the version that is wanted, "" for any that was created at the given second.
func (a *account) read(ctx context.Context, containerName, name, etag string, created, offset int64, p []byte) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	a.reads.Add(1)
	options := &azblob.DownloadStreamOptions{Range: azblob.HTTPRange{Offset: offset, Count: int64(len(p))}}
	if etag != "" {
		match := azcore.ETag(etag)
		options.AccessConditions = &azblob.AccessConditions{ModifiedAccessConditions: &azblob.ModifiedAccessConditions{IfMatch: &match}}
	}
	r, err := a.service.NewContainerClient(containerName).NewBlobClient(name).DownloadStream(ctx, options)
	if err != nil {
		a.sawError(err)
		return 0, err
	}
	defer r.Body.Close()
	a.sawDate(r.Date)
	if etag == "" && (r.CreationTime == nil || r.CreationTime.Unix() != created) {
		return 0, errOther
	}
	for n < len(p) && err == nil {
		var k int
		k, err = r.Body.Read(p[n:])
		n += k
	}
	if n == len(p) {
		return n, nil
	}
	return n, err
}

// shardItem is a shard's blob as listed.
type shardItem struct {
	n           int
	name, owner string
	reads       string // what its owner reads, as readsOf; "" where that was an older version
	shards      int    // in all, as its last owner was told; 0 when there was none
	begun       int64  // when the first worker of the container began, Unix seconds; 0 when unknown
	state       azlease.StateType
	forEver     bool // no worker's lease is
}

// owned tells whether a worker has the lease.
func (l shardItem) owned() bool {
	return l.state == azlease.StateTypeLeased || l.state == azlease.StateTypeBreaking
}

// shards lists the blobs of shards.
func (a *account) shards(ctx context.Context, containerName string) (all []shardItem, err error) {
	prefix, most := shardPrefix, int32(smallPage) // all of one's own; those of others may have 8 KB of metadata each
	pager := a.service.NewContainerClient(containerName).NewListBlobsFlatPager(&azcontainer.ListBlobsFlatOptions{
		Prefix: &prefix, MaxResults: &most, Include: azcontainer.ListBlobsInclude{Metadata: true}})
	var seen markers
	for pager.More() {
		if err := a.pace.wait(ctx); err != nil {
			return nil, err
		}
		a.lists.Add(1)
		page, err := func() (azcontainer.ListBlobsFlatResponse, error) {
			ctx, cancel := context.WithTimeout(ctx, listTimeout)
			defer cancel()
			return pager.NextPage(ctx)
		}()
		if err == nil && page.NextMarker != nil {
			items := 0
			if page.Segment != nil {
				items = len(page.Segment.BlobItems)
			}
			err = seen.take(*page.NextMarker, items)
		}
		if err != nil {
			a.sawError(err)
			return nil, err
		}
		a.sawDate(page.Date)
		if page.Segment == nil {
			continue
		}
		for _, b := range page.Segment.BlobItems {
			if b.Name == nil || b.Properties == nil || b.Properties.LeaseState == nil {
				continue
			}
			n, err := strconv.Atoi(strings.TrimPrefix(*b.Name, prefix))
			if err != nil || n < 0 || n >= maxShards || *b.Name != shardName(n) {
				continue // somebody else's
			}
			shards, _ := strconv.Atoi(metadata(b.Metadata, "shards"))
			begun, _ := strconv.ParseInt(metadata(b.Metadata, "begun"), 10, 64)
			lasts := b.Properties.LeaseDuration
			all = append(all, shardItem{n: n, name: *b.Name, owner: metadata(b.Metadata, "owner"), reads: metadata(b.Metadata, "reads"), shards: shards, begun: begun,
				state: *b.Properties.LeaseState, forEver: lasts != nil && *lasts == azlease.DurationTypeInfinite})
		}
	}
	return all, nil
}

// whole reads a small blob, and its version. One that is larger than any worker writes has its
// version, too.
func (a *account) whole(ctx context.Context, containerName, name string) (text []byte, etag azcore.ETag, err error) {
	a.reads.Add(1)
	ctx = context.WithValue(ctx, wholeKey{}, true)
	client := a.service.NewContainerClient(containerName).NewBlobClient(name)
	r, err := client.DownloadStream(ctx, nil)
	if long := new(web.LengthError); errors.As(err, &long) {
		p, e := client.GetProperties(ctx, nil)
		switch {
		case e != nil:
			return nil, "", e
		case p.ETag == nil || *p.ETag == "":
			return nil, "", errNoETag
		}
		return nil, *p.ETag, long
	}
	if err != nil {
		a.sawError(err)
		return nil, "", err
	}
	defer r.Body.Close()
	if r.ETag == nil || *r.ETag == "" {
		return nil, "", errNoETag
	}
	text, err = io.ReadAll(r.Body)
	return text, *r.ETag, err
}

// properties asks for one blob's entry of a listing.
func (a *account) properties(ctx context.Context, containerName, name string) (it item, err error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	a.reads.Add(1)
	r, err := a.service.NewContainerClient(containerName).NewBlobClient(name).GetProperties(ctx, nil)
	if err != nil {
		a.sawError(err)
		return item{}, err
	}
	it = item{name: name, etag: quoted(r.ETag)}
	if r.ContentLength != nil {
		it.size = *r.ContentLength
	}
	if r.CreationTime != nil {
		it.created = r.CreationTime.Unix()
	}
	if r.LastModified != nil {
		it.modified = r.LastModified.Unix()
	}
	it.append = r.BlobType != nil && *r.BlobType == azblob.BlobTypeAppendBlob
	return it, nil
}
