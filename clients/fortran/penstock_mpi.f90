! The ranks of an MPI communicator for penstock's connect; MPI programs compile and use it.
!
!     call link%connect(penstock_mpi_ranks(MPI_COMM_WORLD))
!
! The client itself knows nothing of MPI: this file is compiled with the program's own mpi_f08.
module penstock_mpi
  use, intrinsic :: iso_c_binding
  use mpi_f08
  use penstock, only: penstock_ranks
  use penstock_c, only: c_pause
  implicit none
  private
  public :: penstock_mpi_ranks

contains

  ! comm is used by the link until it is closed.
  function penstock_mpi_ranks(comm) result(ranks)
    type(MPI_Comm), intent(in) :: comm
    type(penstock_ranks) :: ranks
    integer :: rank, size
    type(MPI_Comm), pointer :: kept

    allocate (kept)  ! a handle, a few bytes for the program's lifetime
    kept = comm
    call MPI_Comm_rank(comm, rank)
    call MPI_Comm_size(comm, size)
    ranks%c%rank = rank
    ranks%c%size = size
    ranks%c%bcast = c_funloc(broadcast)
    ranks%c%any = c_funloc(combine)
    ranks%c%abort = c_funloc(abort_all)
    ranks%c%context = c_loc(kept)
  end function penstock_mpi_ranks

  integer(c_int) function broadcast(link, context, bytes, n_bytes) bind(c)
    type(c_ptr), value :: link, context, bytes
    integer(c_size_t), value :: n_bytes
    integer(c_signed_char), pointer, contiguous, asynchronous :: buffer(:)
    type(MPI_Comm), pointer :: comm
    type(MPI_Request) :: request
    integer :: failure

    call c_f_pointer(context, comm)
    call c_f_pointer(bytes, buffer, [n_bytes])
    call MPI_Ibcast(buffer, int(n_bytes), MPI_BYTE, 0, comm, request, failure)
    if (failure == MPI_SUCCESS) call wait(link, request, failure)
    broadcast = merge(0, 1, failure == MPI_SUCCESS)
  end function broadcast

  integer(c_int) function combine(link, context, flag, anywhere) bind(c)
    type(c_ptr), value :: link, context
    integer(c_int), value :: flag
    integer(c_int), intent(inout) :: anywhere
    integer, asynchronous :: mine, largest
    type(MPI_Comm), pointer :: comm
    type(MPI_Request) :: request
    integer :: failure

    call c_f_pointer(context, comm)
    mine = merge(1, 0, flag /= 0)
    largest = 0
    call MPI_Iallreduce(mine, largest, 1, MPI_INTEGER, MPI_MAX, comm, request, failure)
    if (failure == MPI_SUCCESS) call wait(link, request, failure)
    anywhere = largest
    combine = merge(0, 1, failure == MPI_SUCCESS)
  end function combine

  subroutine abort_all(context, exit_code) bind(c)
    type(c_ptr), value :: context
    integer(c_int), value :: exit_code
    type(MPI_Comm), pointer :: comm

    call c_f_pointer(context, comm)
    call MPI_Abort(comm, int(exit_code))
  end subroutine abort_all

  ! A rank that waits sleeps in between, and hears the shards.
  subroutine wait(link, request, failure)
    type(c_ptr), intent(in) :: link
    type(MPI_Request), intent(inout) :: request
    integer, intent(out) :: failure
    logical :: done
    integer(c_int) :: turn

    turn = 0
    do
      call MPI_Test(request, done, MPI_STATUS_IGNORE, failure)
      if (done .or. failure /= MPI_SUCCESS) return
      call c_pause(link, turn)
      turn = turn + 1
    end do
  end subroutine wait
end module penstock_mpi
