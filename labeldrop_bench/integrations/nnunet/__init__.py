"""nnU-Net v2: trainers for data sets in which not every case has every label; see docs/nnunet.md.

`trainer` has the trainers, `trainers/` is the folder in which nnU-Net finds them, `annotations` reads what was
annotated, `scores` leaves out of nnU-Net's scores what was not, `command` is `labeldrop-bench nnunet`.
"""
