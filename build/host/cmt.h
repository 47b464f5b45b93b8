#ifndef HOST_CMT_H
#define HOST_CMT_H

/* What input_get_cmt_instance returns for a section. */
void *cmt_context(void);

/* Writes all series to path, in the text form that Prometheus reads; the file is replaced as a whole. */
void cmt_write(const char *path);

/* Forgets all series: those of a generation go with it. */
void cmt_forget(void);

#endif
